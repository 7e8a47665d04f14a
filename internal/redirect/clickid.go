package redirect

import (
	"bytes"
	"math/rand/v2"
	"net/http"

	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
)

// nameClick gives the click an id of its own and adds it to the location, under the name that the
// domain asks for, so that the destination can report what the click led to. A permanent redirect gets
// none: browsers keep it, and all later visits would have the same id.
//
// Hot path: 0 allocs/op, see TestClickIDAllocs.
func nameClick(r *request, d *domains.Domain, v *decision) {
	if v.outcome != clicks.OutcomeRedirect || v.location == nil || v.status == http.StatusMovedPermanently || v.status == http.StatusPermanentRedirect {
		return
	}
	id := clicks.NewClickID(r.now, rand.Uint64(), rand.Uint64())
	r.click.ID = id
	// The location may be part of the link, or the scratch memory itself.
	loc := append(r.named[:0], v.location...)
	fragment := bytes.IndexByte(loc, '#')
	var rest [256]byte
	tail := rest[:0]
	if fragment >= 0 {
		tail = append(tail, loc[fragment:]...)
		loc = loc[:fragment]
	}
	mark := byte('?')
	if bytes.IndexByte(loc, '?') >= 0 {
		mark = '&'
	}
	loc = append(append(append(loc, mark), d.ClickIDParameter...), '=')
	loc = id.AppendText(loc)
	loc = append(loc, tail...)
	r.named, v.location, v.private = loc, loc, true
}
