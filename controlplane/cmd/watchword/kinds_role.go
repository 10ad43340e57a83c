package main

import "strings"

func roleBindingRow(i item) []cell {
	spec := i.object("spec")
	return row(i, spec.text("role"), spec.texts("services"), subjectsText(spec.list("subjects")))
}

// subjectsText names who has a role, as the audit names them where it can.
func subjectsText(subjects []any) string {
	var out []string
	for _, v := range subjects {
		m, _ := v.(map[string]any)
		out = append(out, subjectText(item(m)))
	}
	return strings.Join(out, ",")
}

func subjectText(s item) string {
	certificate := s.object("certificate")
	for _, named := range []struct{ prefix, name string }{
		{"service:", s.text("service")},
		{"unix:", s.text("unixUser")},
		{"certificate:uri:", certificate.text("uri")},
		{"certificate:dns:", certificate.text("dnsName")},
		{"certificate:email:", certificate.text("email")},
	} {
		if named.name != "" {
			return named.prefix + named.name
		}
	}
	token := s.object("token")
	if len(token.list("subjects")) == 0 {
		return "token:" + token.text("issuer") + " (" + count(len(token.list("claims")), "claim") + ")"
	}
	var out []string
	for _, subject := range token.list("subjects") {
		out = append(out, "token:"+token.text("issuer")+"/"+text(subject))
	}
	return strings.Join(out, ",")
}
