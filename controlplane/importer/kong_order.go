package importer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// kongPart is what Kong's router orders: the paths of a route that have one
// length, which it tries apart from the route's other ones.
type kongPart struct {
	of     *kongRoute
	route  *policyv1.Route
	length int
}

// ordered are the Routes of a service as Kong's router tries them.
func (k *kong) ordered(s *kongService) []*policyv1.Route {
	lengths := map[kongRank][]int{}
	for _, r := range s.routes {
		if !r.left {
			lengths[r.rank()] = append(lengths[r.rank()], r.lengths()...)
		}
	}
	for _, l := range lengths {
		slices.Sort(l)
	}
	var parts []kongPart
	for _, r := range s.routes {
		if !r.left {
			parts = append(parts, k.parts(s, r, r.interleaved(lengths[r.rank()]))...)
		}
	}
	slices.SortStableFunc(parts, kongPart.before)
	var out []*policyv1.Route
	for _, p := range parts {
		out = append(out, p.route)
	}
	return out
}

// parts takes a route apart where another one may come between its paths; it
// stays in one piece otherwise, since nobody could tell.
func (k *kong) parts(s *kongService, r *kongRoute, interleaved bool) []kongPart {
	lengths := r.lengths()
	if !interleaved {
		r.names = []string{r.route.GetName()}
		return []kongPart{{r, r.route, slices.Max(append(lengths, 0))}}
	}
	var out []kongPart
	for i, n := range lengths {
		name := r.route.GetName()
		if i > 0 {
			name = k.name("Route of "+s.name, fmt.Sprintf("%s-%d", name, i+1), fmt.Sprintf("%s%s/%d", r.source, r.path, n))
		}
		r.names = append(r.names, name)
		out = append(out, kongPart{r, &policyv1.Route{Name: name, Hosts: r.route.GetHosts(), Methods: r.route.GetMethods(), Paths: r.pathsOf(n)}, n})
	}
	k.warn(r.node, "Kong tries each length of its paths on its own, and another route may come between: it is in parts here (%s)", strings.Join(r.names, ", "))
	return out
}

// interleaved says whether another route has a path whose length is among those
// of this one. All are the lengths, in order, of the routes of the same rank.
func (r *kongRoute) interleaved(all []int) bool {
	mine := r.lengths()
	if len(mine) < 2 {
		return false
	}
	first, _ := slices.BinarySearch(all, mine[len(mine)-1])
	end, _ := slices.BinarySearch(all, mine[0]+1)
	return end-first > len(mine)
}

// lengths of the paths, longest first.
func (r *kongRoute) lengths() []int {
	out := slices.Sorted(maps.Keys(r.byLength))
	slices.Reverse(out)
	return out
}

func (r *kongRoute) pathsOf(lengths ...int) []string {
	var out []string
	for _, n := range lengths {
		out = append(out, r.byLength[n]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// shared says whether Kong's prefix would match more, such as /ab for /a.
func (r *kongRoute) shared() bool {
	return slices.ContainsFunc(r.route.GetPaths(), func(p string) bool { return !strings.HasSuffix(p, "*") })
}

// kongRank is what decides before the length of paths.
type kongRank struct{ terms, plainHosts int }

func (r *kongRoute) rank() kongRank { return kongRank{r.terms(), r.plainHosts()} }

// before sorts as Kong looks routes up: those that say more first, then those
// with plain hosts alone, then longer paths; then as they stand in the file.
// What else Kong orders by, headers and regular expressions, is in no route
// that gets here.
func (p kongPart) before(o kongPart) int {
	mine, other := p.of.rank(), o.of.rank()
	return cmp.Or(
		cmp.Compare(other.terms, mine.terms),
		cmp.Compare(other.plainHosts, mine.plainHosts),
		cmp.Compare(o.length, p.length),
	)
}

func (r *kongRoute) terms() int {
	n := 0
	for _, list := range [][]string{r.route.GetHosts(), r.route.GetPaths(), r.route.GetMethods()} {
		n += min(len(list), 1)
	}
	return n
}

// plainHosts is 1 for a route with hosts of which none is a wildcard. One
// without hosts is no better than one with wildcards.
func (r *kongRoute) plainHosts() int {
	hosts := r.route.GetHosts()
	if len(hosts) == 0 || slices.ContainsFunc(hosts, func(h string) bool { return strings.HasPrefix(h, "*") }) {
		return 0
	}
	return 1
}
