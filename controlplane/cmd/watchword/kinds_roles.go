package main

import "strings"

func roleBindingRow(i item) []cell {
	spec := i.object("spec")
	var subjects []string
	for _, v := range spec.list("subjects") {
		m, _ := v.(map[string]any)
		subjects = append(subjects, roleSubjectText(m))
	}
	services := spec.texts("services")
	if services == "" && spec.text("role") != "SERVICE_OWNER" {
		services = "all" // as whoami says it
	}
	return row(i, spec.text("role"), services, strings.Join(subjects, ","))
}

// roleSubjectText names a subject as whoami and the audit do, as far as it is one.
func roleSubjectText(s item) string {
	certificate := s.object("certificate")
	switch {
	case s["token"] != nil:
		return tokenSubjectText(s.object("token"))
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

// tokenSubjectText is one name for each subject; who is one has the claims too.
func tokenSubjectText(token item) string {
	claims := ""
	if n := len(token.list("claims")); n > 0 {
		claims = " (" + count(n, "claim") + ")"
	}
	issuer := "token:" + token.text("issuer")
	if len(token.list("subjects")) == 0 {
		return issuer + claims
	}
	var out []string
	for _, subject := range token.list("subjects") {
		out = append(out, issuer+"/"+text(subject)+claims)
	}
	return strings.Join(out, ",")
}
