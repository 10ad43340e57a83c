package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// files is the flag -f with what belongs to it.
type files struct {
	paths     []string
	recursive bool
}

func (f *files) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.paths, "file", "f", nil, "`FILE` with YAML or JSON documents, a folder (its *.yaml, *.yml and *.json), or - for standard input; may be repeated")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "with -f FOLDER: its subfolders too")
	must(cmd.MarkFlagFilename("file", "yaml", "yml", "json"))
}

// read returns the documents of all paths, those of a folder in the order of
// their names.
func (f *files) read(stdin io.Reader) ([]*adminv1.Document, error) {
	var documents []*adminv1.Document
	for _, path := range f.paths {
		if path == "-" {
			content, err := io.ReadAll(stdin)
			if err != nil {
				return nil, fmt.Errorf("reading standard input: %w", err)
			}
			documents = append(documents, &adminv1.Document{Source: "stdin", Content: string(content)})
			continue
		}
		found, err := f.readPath(path)
		if err != nil {
			return nil, err
		}
		documents = append(documents, found...)
	}
	return documents, checkText(documents)
}

func (f *files) readPath(path string) ([]*adminv1.Document, error) {
	names, err := f.expand(path)
	if err != nil {
		return nil, err
	}
	var documents []*adminv1.Document
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading documents: %w", err)
		}
		documents = append(documents, &adminv1.Document{Source: name, Content: string(content)})
	}
	return documents, nil
}

// expand is the path itself, or the documents in it if it is a folder.
func (f *files) expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading documents: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var names []string
	err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != path && strings.HasPrefix(entry.Name(), "."):
			// Editors and version control leave their copies there.
			return skip(entry)
		case entry.IsDir() && name != path && !f.recursive:
			return fs.SkipDir
		case !entry.IsDir() && isDocument(name):
			names = append(names, name)
		}
		return nil
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s holds no *.yaml, *.yml or *.json; with -R its subfolders count too", path)
	}
	slices.Sort(names)
	return names, err
}

func skip(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func isDocument(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// checkText refuses what can't travel as text, which gRPC would refuse
// without saying which file it was.
func checkText(documents []*adminv1.Document) error {
	f := &failure{code: exitRefused, err: errors.New("nothing was sent")}
	for _, d := range documents {
		if line, ok := firstBadLine(d.GetContent()); !ok {
			f.lines = append(f.lines, faultLine(&adminv1.Fault{Source: d.GetSource(), Line: line, Message: "not UTF-8 text; save the file as UTF-8"}))
		}
	}
	if len(f.lines) > 0 {
		return f
	}
	return nil
}

func firstBadLine(text string) (line int32, ok bool) {
	if utf8.ValidString(text) {
		return 0, true
	}
	for part := range strings.Lines(text) {
		line++
		if !utf8.ValidString(part) {
			break
		}
	}
	return line, false
}
