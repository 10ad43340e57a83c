package main

import "strings"

func roleBindingRow(i item) []cell {
	spec := i.object("spec")
	var subjects []string
	for _, v := range spec.list("subjects") {
		m, _ := v.(map[string]any)
		subjects = append(subjects, roleSubjectText(m))
	}
	return row(i, spec.text("role"), strings.Join(subjects, ","), spec.texts("services"))
}

// roleSubjectText names a subject as whoami and the audit do, as far as it is one.
func roleSubjectText(s item) string {
	token, certificate := s.object("token"), s.object("certificate")
	switch {
	case token != nil:
		text := "token:" + token.text("issuer")
		if subjects := token.texts("subjects"); subjects != "" {
			text += "/" + subjects
		}
		if n := len(token.list("claims")); n > 0 {
			text += " (" + count(n, "claim") + ")"
		}
		return text
	case certificate["uri"] != nil:
		return "certificate:uri:" + certificate.text("uri")
	case certificate["dnsName"] != nil:
		return "certificate:dns:" + certificate.text("dnsName")
	case certificate["email"] != nil:
		return "certificate:email:" + certificate.text("email")
	case s["unixUser"] != nil:
		return "unix:" + s.text("unixUser")
	}
	return "service:" + s.text("service")
}
