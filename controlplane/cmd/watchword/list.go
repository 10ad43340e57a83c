package main

import (
	"fmt"
)

// listing is how a list of things of one kind is printed.
type listing[T any] struct {
	// Such as "join token".
	noun   string
	name   func(T) string
	header []string
	row    func(T) []cell
}

// print prints the list itself as JSON or YAML.
func (l *listing[T]) print(c *console, views []T) error {
	if ok, err := c.structured(views); ok {
		return err
	}
	if len(views) == 0 {
		fmt.Fprintf(c.err, "no %ss\n", l.noun)
		return nil
	}
	if c.format == formatName {
		for _, v := range views {
			fmt.Fprintln(c.out, oneLine(l.name(v)))
		}
		return nil
	}
	var rows [][]cell
	for _, v := range views {
		rows = append(rows, l.row(v))
	}
	c.table(l.header, rows)
	return nil
}

// did says that something was done; as a name it is its name alone.
func (c *console) did(noun, name, what string) {
	if c.format == formatName {
		fmt.Fprintln(c.out, oneLine(name))
		return
	}
	fmt.Fprintf(c.out, "%s %s %s\n", noun, oneLine(name), what)
}

// doEach does something to each name until it fails, and prints those that it was
// done to.
func (c *console) doEach(noun, what string, names []string, do func(name string) error) error {
	done := []string{}
	var failed error
	for _, name := range names {
		if failed = do(name); failed != nil {
			break
		}
		done = append(done, name)
		if c.format == formatTable || c.format == formatName {
			c.did(noun, name, what)
		}
	}
	if _, err := c.structured(done); err != nil {
		return err
	}
	return failed
}
