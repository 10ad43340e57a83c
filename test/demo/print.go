package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fatih/color"
)

// printer tells the story.
type printer struct {
	out io.Writer
	// terminal means that a line can be drawn again.
	terminal, color bool
}

// paint colours text if out has colours.
func (p *printer) paint(text string, attributes ...color.Attribute) string {
	if !p.color {
		return text
	}
	c := color.New(attributes...)
	c.EnableColor()
	return c.Sprint(text)
}

func (p *printer) title(m *mesh) {
	fmt.Fprintln(p.out, p.paint("Watchword: three services behind real Envoys", color.Bold))
	fmt.Fprintf(p.out, "Commands are shortened: to type them, add --data-dir %s\n", m.dataDir())
}

func (p *printer) section(name string) {
	if name != "" {
		fmt.Fprintf(p.out, "\n%s\n", p.paint(name, color.Bold))
	}
}

const indent = "         "

// right prints a step that came out as it should, and what one would type.
func (p *printer) right(number int, s step, got string, m *mesh) {
	fmt.Fprintf(p.out, "%3d  %s  %s -> %s\n", number, p.paint("ok", color.FgGreen), s.say, p.paint(got, color.Bold))
	p.commands(s, m)
}

func (p *printer) wrong(number int, s step, got string, m *mesh) {
	fmt.Fprintf(p.out, "%3d  %s  %s\n", number, p.paint("WRONG", color.FgRed, color.Bold), s.say)
	p.commands(s, m)
	fmt.Fprintf(p.out, "%sgot   %s\n%swant  %s\n%slogs  %s\n", indent, strings.ReplaceAll(got, "\n", "\n"+indent+"      "), indent, s.want, indent, m.logs())
}

func (p *printer) commands(s step, m *mesh) {
	for _, c := range s.do.commands(m) {
		fmt.Fprintf(p.out, "%s%s\n", indent, p.paint("$ "+c, color.Faint))
	}
}

func (p *printer) brokenOff(left int) {
	fmt.Fprintf(p.out, "\nWithout that, the %s left can't come out right.\n", count(left, "step"))
}

// total is the last line.
func (p *printer) total(right, all int, took time.Duration, m *mesh) {
	attribute, where := color.FgGreen, ""
	if right < all {
		attribute, where = color.FgRed, ", logs in "+m.logs()
	}
	line := fmt.Sprintf("%d of %d steps came out right, %.0f s", right, all, took.Seconds())
	fmt.Fprintf(p.out, "\n%s%s\n", p.paint(line, attribute, color.Bold), where)
}

// next prints what to try while everything runs.
func (p *printer) next(m *mesh) {
	watchword, dir := filepath.Join(".build", "bin", "watchword"), m.dataDir()
	orders := m.url(request{to: "orders", path: "/orders/7"})
	fmt.Fprintf(p.out, "\nEverything runs until Ctrl-C. In another terminal, in the same folder:\n\n")
	for _, c := range []struct{ why, command string }{
		{"who is in sync, and since when", watchword + " status --data-dir " + dir},
		{"a token, and a request with it", fmt.Sprintf("TOKEN=$(%s token --service reports --audience orders --data-dir %s)", watchword, dir)},
		{"", fmt.Sprintf(`curl -si -H "Authorization: Bearer $TOKEN" %s`, orders)},
		{"delete the policy that refused it, and ask again", fmt.Sprintf("%s delete authorizationpolicy orders-callers --wait --data-dir %s", watchword, dir)},
		{"", fmt.Sprintf(`curl -si -H "Authorization: Bearer $TOKEN" %s`, orders)},
		{"everything as it was", fmt.Sprintf("%s apply -f %s --wait --data-dir %s", watchword, m.path("mesh"), dir)},
		{"what the Envoys and the control plane say", "tail -f " + filepath.Join(m.logs(), "*.log")},
	} {
		if c.why != "" {
			fmt.Fprintf(p.out, "  %s\n", p.paint("# "+c.why, color.Faint))
		}
		fmt.Fprintf(p.out, "  %s\n", c.command)
	}
}

func (p *printer) stopping(m *mesh) {
	fmt.Fprintf(p.out, "\nStopping everything. Logs and data stay in %s\n", m.dir)
}

// end ends a line that Ctrl-C has cut.
func (p *printer) end() {
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}

// Progress is shown for what takes longer than patience.
const (
	patience = 2 * time.Second
	again    = time.Second
)

// progress says what is being done, until its result is called.
func (p *printer) progress(say string) (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		began, tick := time.Now(), time.NewTicker(again)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-stop:
				if shown && p.terminal {
					fmt.Fprint(p.out, "\r\x1b[K")
				}
				return
			case <-tick.C:
			}
			if took := time.Since(began); took >= patience-again/2 && (p.terminal || !shown) {
				p.working(say, took)
				shown = true
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stop)
		<-stopped
	})
}

// working is drawn over itself on a terminal, and printed once elsewhere.
func (p *printer) working(say string, took time.Duration) {
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K     ..  %s (%.0f s)", say, took.Seconds())
		return
	}
	fmt.Fprintf(p.out, "     ..  %s (working on it)\n", say)
}

// count is "1 step", "2 steps".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// unique keeps the first of equal texts.
func unique(texts []string) []string {
	seen := make(map[string]bool)
	var out []string
	for _, t := range texts {
		if !seen[t] {
			seen[t] = true
			out = append(out, t)
		}
	}
	return out
}
