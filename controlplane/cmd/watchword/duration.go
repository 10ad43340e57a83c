package main

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// timeOf is nil for a time that is not set.
func timeOf(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

// took prints how long something took: "31 ms", "1.2 s", "2m5s".
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	}
	return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
}

// age prints how long ago something was, in its largest unit: "12s", "5m",
// "3h", "4d".
func age(since, now time.Time) string {
	if since.IsZero() || since.Unix() == 0 {
		return ""
	}
	// A clock of the control plane that is ahead must not print "-1s".
	d := max(now.Sub(since), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// ageOf is the age of a time that may not be set.
func ageOf(since *time.Time, now time.Time) string {
	if since == nil {
		return ""
	}
	return age(*since, now)
}

func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// left prints how long it is until something ends.
func left(until *time.Time, now time.Time) string {
	switch {
	case until == nil:
		return ""
	case !until.After(now):
		return "expired"
	}
	return age(now, *until)
}
