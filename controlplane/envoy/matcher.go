package envoy

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	metadatamatcherv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/metadata/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The terms of matcher trees: maps find their entry by hash, whatever their
// size, and lists go in order. They look at filter state: metadata is accepted
// as an input of a map by Envoy and never matches there.

type (
	tree    = xdsmatcherv3.Matcher
	onMatch = xdsmatcherv3.Matcher_OnMatch
)

// action ends a search. Its name is what the RBAC filter writes to metadata and,
// if it refuses, to the response code details.
func action(name string, do rbacconfigv3.RBAC_Action) *onMatch {
	return &onMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: xdsExtension("action", &rbacconfigv3.Action{Name: name, Action: do})}}
}

func allow(name string) *onMatch { return action(name, rbacconfigv3.RBAC_ALLOW) }

func deny(name string) *onMatch { return action(name, rbacconfigv3.RBAC_DENY) }

// goOn searches a further tree; nil for nil.
func goOn(t *tree) *onMatch {
	if t == nil {
		return nil
	}
	return &onMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: t}}
}

// lookUp finds the entry that a filter state is equal to. Entries that are nil
// don't count; without any the tree is what otherwise says, or nil.
func lookUp(state string, entries map[string]*onMatch, otherwise *onMatch) *tree {
	m := map[string]*onMatch{}
	for k, e := range entries {
		if e != nil {
			m[k] = e
		}
	}
	if len(m) == 0 { // Envoy refuses an empty map
		if otherwise == nil {
			return nil
		}
		return &tree{OnNoMatch: otherwise}
	}
	return &tree{
		MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
			Input: stateInput(state),
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{
				ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: m},
			},
		}},
		OnNoMatch: otherwise,
	}
}

// branch is one entry of a list.
type branch struct {
	when *xdsmatcherv3.Matcher_MatcherList_Predicate
	then *onMatch
}

// inOrder takes the first branch whose predicate holds; branches that lead
// nowhere are left out, and a list of none is nil.
func inOrder(branches []branch) *tree {
	list := new(xdsmatcherv3.Matcher_MatcherList)
	for _, b := range branches {
		if b.then != nil {
			list.Matchers = append(list.Matchers, &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{Predicate: b.when, OnMatch: b.then})
		}
	}
	if len(list.Matchers) == 0 {
		return nil
	}
	return &tree{MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: list}}
}

// stateIsSet holds when a filter state is there.
func stateIsSet(state string) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	return single(stateInput(state), &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{
		SafeRegex: &xdsmatcherv3.RegexMatcher{
			EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: new(xdsmatcherv3.RegexMatcher_GoogleRE2)},
			Regex:      "(?s).+",
		},
	}})
}

func stateEquals(state, value string) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	return single(stateInput(state), &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Exact{Exact: value}})
}

func single(input *xdscorev3.TypedExtensionConfig, m *xdsmatcherv3.StringMatcher) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	return &xdsmatcherv3.Matcher_MatcherList_Predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input:   input,
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: m},
		},
	}}
}

// metadataHolds holds when a value in the metadata matches.
func metadataHolds(v *matcherv3.ValueMatcher, namespace string, path ...string) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	input := &networkinputsv3.DynamicMetadataInput{Filter: namespace}
	for _, p := range path {
		input.Path = append(input.Path, &networkinputsv3.DynamicMetadataInput_PathSegment{
			Segment: &networkinputsv3.DynamicMetadataInput_PathSegment_Key{Key: p},
		})
	}
	return &xdsmatcherv3.Matcher_MatcherList_Predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: xdsExtension("metadata", input),
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{
				CustomMatch: xdsExtension("value", &metadatamatcherv3.Metadata{Value: v}),
			},
		},
	}}
}

type predicate = xdsmatcherv3.Matcher_MatcherList_Predicate

// allOf and anyOf want at least one.
func allOf(list []*predicate) *predicate {
	if len(list) == 1 {
		return list[0]
	}
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher{
		AndMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: list},
	}}
}

func anyOf(list []*predicate) *predicate {
	if len(list) == 1 {
		return list[0]
	}
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher{
		OrMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: list},
	}}
}

func noneOf(p *predicate) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: p}}
}

func stateInput(key string) *xdscorev3.TypedExtensionConfig {
	return xdsExtension("state", &networkinputsv3.FilterStateInput{Key: key})
}

// xdsExtension encodes types that are all ours to choose; a failure would be a
// string that is not UTF-8, with which the whole resource fails to encode, too.
func xdsExtension(name string, m proto.Message) *xdscorev3.TypedExtensionConfig {
	a := new(anypb.Any)
	_ = anypb.MarshalFrom(a, m, marshal)
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: a}
}
