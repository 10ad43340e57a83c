package main

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// days is what tables print of times of a day and longer; time.ParseDuration
// does not know it.
var days = regexp.MustCompile(`^([0-9]{1,5})d(.*)$`)

// durationFlag is a flag for a duration that may have days: "36h", "7d", "1d12h".
type durationFlag time.Duration

func addDuration(flags *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	flags.Var((*durationFlag)(d), name, usage)
}

func (d *durationFlag) String() string { return time.Duration(*d).String() }
func (d *durationFlag) Type() string   { return "duration" }
func (d *durationFlag) Set(s string) error {
	parsed, err := parseDuration(s)
	if err != nil {
		return err
	}
	*d = durationFlag(parsed)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	whole, rest := time.Duration(0), s
	if m := days.FindStringSubmatch(s); m != nil {
		n, _ := strconv.Atoi(m[1]) // five digits at most, which fit
		whole, rest = time.Duration(n)*24*time.Hour, m[2]
		if rest == "" {
			return whole, nil
		}
		if rest[0] == '-' || rest[0] == '+' {
			return 0, fmt.Errorf("want a duration such as 30s, 12h, 7d or 1d12h")
		}
	}
	part, err := time.ParseDuration(rest)
	if err != nil || part > 1<<63-1-whole {
		return 0, fmt.Errorf("want a duration such as 30s, 12h, 7d or 1d12h")
	}
	return whole + part, nil
}
