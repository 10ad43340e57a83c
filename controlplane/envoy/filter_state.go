package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
)

// stateValue is one entry of a set_filter_state filter. Of several for one key
// the last that is not empty stays.
type stateValue struct{ key, format string }

// filterState copies facts to where matchers and jwt_authn look them up by
// hash: they can't do that with metadata.
func filterState(values []stateValue) *setstatev3.Config {
	c := new(setstatev3.Config)
	for _, v := range values {
		c.OnRequestHeaders = append(c.OnRequestHeaders, &commonstatev3.FilterStateValue{
			Key:         &commonstatev3.FilterStateValue_ObjectKey{ObjectKey: v.key},
			FactoryKey:  "envoy.string",
			SkipIfEmpty: true,
			Value: &commonstatev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
				OmitEmptyValues: true,
				Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
					Specifier: &corev3.DataSource_InlineString{InlineString: v.format},
				}},
			}},
		})
	}
	return c
}
