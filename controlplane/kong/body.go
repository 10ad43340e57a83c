package kong

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
)

// body reads what a request says, whichever of Kong's three forms it has. Other
// methods than POST, PUT and PATCH have none.
func body(r *http.Request) (map[string]any, *problem) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut && r.Method != http.MethodPatch {
		return nil, nil
	}
	types := r.Header.Values("Content-Type")
	if len(types) > 1 {
		return nil, said(http.StatusBadRequest, "Multiple Content-Type headers not allowed")
	}
	text, p := read(r.Body)
	if p != nil {
		return nil, p
	}
	if len(types) == 0 {
		if len(text) > 0 {
			return nil, unsupported()
		}
		return map[string]any{}, nil
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return nil, unsupported()
	}
	switch media {
	case "application/json":
		return readJSON(text)
	case "application/x-www-form-urlencoded":
		return readForm(string(text))
	case "multipart/form-data":
		return readMultipart(text, params["boundary"])
	}
	return nil, unsupported()
}

func unsupported() *problem {
	return said(http.StatusUnsupportedMediaType, "Content-Type must be application/json, application/x-www-form-urlencoded or multipart/form-data")
}

// read reads a body that is not too large.
func read(from io.Reader) ([]byte, *problem) {
	if from == nil {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(from, maxBodyBytes+1))
	var outer *http.MaxBytesError
	switch {
	case len(text) > maxBodyBytes, errors.As(err, &outer):
		return nil, said(http.StatusRequestEntityTooLarge, "the body is too large: at most %d bytes", maxBodyBytes)
	case err != nil:
		return nil, said(http.StatusBadRequest, "the body ended early")
	}
	return text, nil
}

func readJSON(text []byte) (map[string]any, *problem) {
	var out map[string]any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil || out == nil {
		return nil, said(http.StatusBadRequest, "Cannot parse JSON body")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, said(http.StatusBadRequest, "Cannot parse JSON body")
	}
	if len(out) > maxFields {
		return nil, tooMany()
	}
	return out, nil
}

func tooMany() *problem {
	return said(http.StatusBadRequest, "the body has too many fields: at most %d", maxFields)
}

func readForm(text string) (map[string]any, *problem) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, said(http.StatusBadRequest, "Cannot parse the form: percent-encode what is not a letter or digit")
	}
	var f form
	for name, list := range values {
		for _, value := range list {
			if f.add(name, value); len(f.entries) > maxFields {
				return nil, tooMany()
			}
		}
	}
	return f.fields(), nil
}

// readMultipart takes files and fields alike: curl's -F name=value and
// -F name=@file.
func readMultipart(text []byte, boundary string) (map[string]any, *problem) {
	if len(text) == 0 {
		return map[string]any{}, nil
	}
	wrong := said(http.StatusBadRequest, "Cannot parse multipart/form-data: it needs a boundary, and a name for each part")
	if boundary == "" {
		return nil, wrong
	}
	var f form
	for parts := multipart.NewReader(bytes.NewReader(text), boundary); ; {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) && bytes.Contains(text, []byte("--"+boundary)) {
			return f.fields(), nil
		}
		if err != nil || part.FormName() == "" {
			return nil, wrong
		}
		value, err := io.ReadAll(part) // of a body that is bounded
		if err != nil {
			return nil, wrong
		}
		if f.add(part.FormName(), string(value)); len(f.entries) > maxFields {
			return nil, tooMany()
		}
	}
}
