package envoy

import (
	exprv1alpha1 "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
)

// expression is a CEL expression as Envoy takes it in RBAC conditions: parsed.
// An expression that fails counts as false, so that a condition of a DENY must
// not be able to.
type expression struct{ e *exprv1alpha1.Expr }

// proto numbers the nodes, as Envoy's evaluator wants them.
func (x *expression) proto() *exprv1alpha1.Expr {
	var id int64
	var number func(e *exprv1alpha1.Expr)
	number = func(e *exprv1alpha1.Expr) {
		if e == nil {
			return
		}
		id++
		e.Id = id
		number(e.GetSelectExpr().GetOperand())
		for _, a := range e.GetCallExpr().GetArgs() {
			number(a)
		}
	}
	number(x.e)
	return x.e
}

// claimOf is a claim of the token that v verified.
func (v *verification) claimOf(name string) *expression {
	return field(v.payload(), name)
}

// hasClaim says whether there is one.
func (v *verification) hasClaim(name string) *expression {
	x := field(v.payload(), name)
	x.e.GetSelectExpr().TestOnly = true
	return x
}

func (v *verification) payload() *expression { return field(jwtMetadata(), v.payloadKey()) }

// jwtMetadata is what jwt_authn has written.
func jwtMetadata() *expression {
	return call("_[_]", field(identifier("metadata"), "filter_metadata"), text(jwtNamespace))
}

// requestHeader is a header of the request, which has to be there.
func requestHeader(name string) *expression {
	return call("_[_]", field(identifier("request"), "headers"), text(name))
}

func identifier(name string) *expression {
	return &expression{&exprv1alpha1.Expr{ExprKind: &exprv1alpha1.Expr_IdentExpr{IdentExpr: &exprv1alpha1.Expr_Ident{Name: name}}}}
}

func field(of *expression, name string) *expression {
	return &expression{&exprv1alpha1.Expr{ExprKind: &exprv1alpha1.Expr_SelectExpr{
		SelectExpr: &exprv1alpha1.Expr_Select{Operand: of.e, Field: name},
	}}}
}

func call(function string, args ...*expression) *expression {
	c := &exprv1alpha1.Expr_Call{Function: function}
	for _, a := range args {
		c.Args = append(c.Args, a.e)
	}
	return &expression{&exprv1alpha1.Expr{ExprKind: &exprv1alpha1.Expr_CallExpr{CallExpr: c}}}
}

// now is in whole seconds of Unix time.
func now() *expression {
	return call("double", call("int", field(identifier("request"), "time")))
}

func text(s string) *expression {
	return constant(&exprv1alpha1.Constant{ConstantKind: &exprv1alpha1.Constant_StringValue{StringValue: s}})
}

func number(n int64) *expression {
	return constant(&exprv1alpha1.Constant{ConstantKind: &exprv1alpha1.Constant_DoubleValue{DoubleValue: float64(n)}})
}

func constant(c *exprv1alpha1.Constant) *expression {
	return &expression{&exprv1alpha1.Expr{ExprKind: &exprv1alpha1.Expr_ConstExpr{ConstExpr: c}}}
}

// later: claim > now + seconds. earlier: claim + seconds < now, but not for 0,
// which jwt_authn takes for no time at all. Numbers in
// metadata are doubles; made integers, one could overflow. jwt_authn has seen to
// it that the claim is a number.
func (v *verification) later(claim string, seconds int64) *expression {
	return call("_&&_", v.hasClaim(claim), call("_>_", v.claimOf(claim), call("_+_", now(), number(seconds))))
}

func (v *verification) earlier(claim string, seconds int64) *expression {
	some := call("_&&_", v.hasClaim(claim), call("_>=_", v.claimOf(claim), number(1)))
	return call("_&&_", some, call("_<_", call("_+_", v.claimOf(claim), number(seconds)), now()))
}
