package bucket

// WithPage returns the options with so many objects in one answer of a listing.
func (o Options) WithPage(n int32) Options {
	o.page = n
	return o
}
