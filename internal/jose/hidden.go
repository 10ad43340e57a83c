package jose

// hidden holds what no print may show. fmt follows one pointer when a verb does not fit,
// also in unexported fields, where it asks no Format method; it never follows two.
type hidden[T any] struct{ p **T }

func hide[T any](v *T) hidden[T] { return hidden[T]{&v} }

// get is nil for the zero hidden.
func (h hidden[T]) get() *T {
	if h.p == nil {
		return nil
	}
	return *h.p
}
