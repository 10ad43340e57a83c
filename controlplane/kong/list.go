package kong

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// filters are the query parameters that choose from a list; a page that follows
// has the same.
var filters = []string{"id", "username", "custom_id", "key", "consumer_id", "tags"}

func (c *call) listConsumers() (answer, *problem) {
	d := c.directory()
	if c.query.Has("custom_id") && c.query.Get("custom_id") == "" {
		return answer{}, said(http.StatusBadRequest, "custom_id must be an unempty string")
	}
	want, p := c.tagFilter()
	if p != nil {
		return answer{}, p
	}
	return list(c, "/consumers", d.consumers, func(one *consumer) bool {
		return c.chosen("id", one.id, strings.EqualFold) && c.chosen("username", one.spec().GetUsername(), same) &&
			c.chosen("custom_id", one.spec().GetCustomId(), same) && want(one.spec().GetTags())
	}, func(one *consumer) any { return one.view() })
}

func (c *call) listCredentials() (answer, *problem) {
	return c.listOf("/jwts", c.directory().credentials)
}

func (c *call) listOwn() (answer, *problem) {
	of := c.directory().consumer(c.consumer)
	if of == nil {
		return answer{}, notFound()
	}
	return c.listOf("/consumers/"+url.PathEscape(of.id)+"/jwt", of.credentials)
}

func (c *call) listOf(path string, all []*credential) (answer, *problem) {
	secrets := c.showSecrets()
	want, p := c.tagFilter()
	if p != nil {
		return answer{}, p
	}
	return list(c, path, all, func(one *credential) bool {
		return c.chosen("id", one.id, strings.EqualFold) && c.chosen("key", one.GetKey(), same) &&
			c.chosen("consumer_id", one.of.id, strings.EqualFold) && want(one.GetTags())
	}, func(one *credential) any { return one.view(secrets) })
}

func same(a, b string) bool { return a == b }

// chosen says whether a filter, if there is one, lets a value through.
func (c *call) chosen(filter, value string, equal func(a, b string) bool) bool {
	return !c.query.Has(filter) || equal(c.query.Get(filter), value)
}

// tagFilter reads ?tags=a,b (all of them) and ?tags=a/b (one of them).
func (c *call) tagFilter() (func(tags []string) bool, *problem) {
	if !c.query.Has("tags") {
		return func([]string) bool { return true }, nil
	}
	text := c.query.Get("tags")
	separator := ","
	if strings.Contains(text, "/") {
		separator = "/"
	}
	wanted := strings.Split(text, separator)
	wrong := ""
	switch {
	case text == "":
		wrong = "cannot be null"
	case len(wanted) > maxFilterTags:
		wrong = fmt.Sprintf("cannot query more than %d tags", maxFilterTags)
	case slices.ContainsFunc(wanted, func(tag string) bool { return !validTag(tag) }):
		wrong = "invalid filter syntax"
	}
	if wrong != "" {
		return nil, &problem{http.StatusBadRequest, optionsFault{invalidOptions, "invalid options", "invalid option (tags: " + wrong + ")", map[string]string{"tags": wrong}}}
	}
	return func(tags []string) bool {
		has := func(tag string) bool { return slices.Contains(tags, tag) }
		if separator == "/" {
			return slices.ContainsFunc(wanted, has)
		}
		return !slices.ContainsFunc(wanted, func(tag string) bool { return !has(tag) })
	}, nil
}

// optionsFault is a fault of query parameters.
type optionsFault struct {
	Code    int               `json:"code"`
	Name    string            `json:"name"`
	Message string            `json:"message"`
	Options map[string]string `json:"options"`
}

// list answers with the page that the query asks for.
func list[T interface{ place() string }](c *call, path string, all []T, keep func(T) bool, view func(T) any) (answer, *problem) {
	size, p := c.size()
	if p != nil {
		return answer{}, p
	}
	again := c.filters()
	scope := path + "?" + again.Encode()
	after, p := c.offset(scope)
	if p != nil {
		return answer{}, p
	}
	begin, found := slices.BinarySearchFunc(all, after, func(one T, place string) int { return strings.Compare(one.place(), place) })
	if found {
		begin++
	}
	out := page{Data: []any{}}
	last := ""
	for _, one := range all[begin:] {
		if !keep(one) {
			continue
		}
		if len(out.Data) == size {
			out.Offset = offsetOf(scope, last)
			break
		}
		out.Data, last = append(out.Data, view(one)), one.place()
	}
	if out.Offset != "" {
		again.Set("offset", out.Offset)
		if c.query.Has("size") {
			again.Set("size", strconv.Itoa(size))
		}
		next := path + "?" + again.Encode()
		out.Next = &next
	}
	return ok(out), nil
}

// filters are those of the query, for the next page.
func (c *call) filters() url.Values {
	out := url.Values{}
	for _, name := range filters {
		if c.query.Has(name) {
			out.Set(name, c.query.Get(name))
		}
	}
	return out
}

func (c *call) size() (int, *problem) {
	if !c.query.Has("size") {
		return defaultPage, nil
	}
	wrong := ""
	size, err := strconv.Atoi(c.query.Get("size"))
	switch {
	case err != nil:
		wrong = "size must be a number"
	case size < 1 || size > maxPage:
		wrong = fmt.Sprintf("size must be an integer between 1 and %d", maxPage)
	}
	if wrong != "" {
		return 0, &problem{http.StatusBadRequest, fault{Code: invalidSize, Name: "invalid size", Message: wrong}}
	}
	return size, nil
}

// offsetOf says where a page ends. It holds for one list with one choice, and is
// the same in every replica. The sum is no secret: it keeps an offset from being
// used where it would skip entries in silence; who makes one up sees nothing that
// the list does not show.
func offsetOf(scope, place string) string {
	return base64.RawURLEncoding.EncodeToString(append(offsetSum(scope, place), place...))
}

const offsetSumBytes = 12

func offsetSum(scope, place string) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "offset\n%q\n%q", scope, place))
	return sum[:offsetSumBytes]
}

// offset is the place behind which the page begins; empty for the first.
func (c *call) offset(scope string) (string, *problem) {
	if !c.query.Has("offset") {
		return "", nil
	}
	text := c.query.Get("offset")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err == nil && len(raw) > offsetSumBytes {
		place := string(raw[offsetSumBytes:])
		if bytes.Equal(raw[:offsetSumBytes], offsetSum(scope, place)) && utf8.ValidString(place) {
			return place, nil
		}
	}
	return "", &problem{http.StatusBadRequest, fault{Code: invalidOffset, Name: "invalid offset",
		Message: fmt.Sprintf("'%s' is not a valid offset: take it from a page of the same list with the same filters", clip(strings.ToValidUTF8(text, "")))}}
}
