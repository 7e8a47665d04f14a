package redirect

import (
	"bufio"
	"net/http"
	"net/netip"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// plainer answers plain requests out of a buffer, without a goroutine for each connection and
// without waiting for anything. The decisions and the bytes of an answer are those of
// respond and of fasthttp; only reading is its own (parse). One belongs to one
// event loop.
type plainer struct {
	s   *Server
	r   *request
	ctx *fasthttp.RequestCtx
	out []byte        // answers not written yet
	bw  *bufio.Writer // into out
}

func newPlainer(s *Server) *plainer {
	p := &plainer{s: s, ctx: &fasthttp.RequestCtx{}}
	p.ctx.Init(&fasthttp.Request{}, nil, fastLog{s.o.Log})
	p.bw = bufio.NewWriterSize(appender{&p.out}, 16<<10)
	p.fresh()
	return p
}

// appender is a writer to a slice.
type appender struct{ to *[]byte }

// Write implements io.Writer.
func (a appender) Write(b []byte) (int, error) {
	*a.to = append(*a.to, b...)
	return len(b), nil
}

func (p *plainer) fresh() { p.r = p.s.requests.New().(*request) }

// step is what comes after an answer or instead of it.
type step uint8

const (
	stepNext   step = iota // an answer is in out; go on behind it
	stepClose              // an answer is in out; it was the last of the connection
	stepMore               // more bytes are needed first
	stepWait               // the request may have to wait for something: a goroutine must answer it
	stepHand               // fasthttp must read the connection from here on
	stepBroken             // stepClose, and what the client goes on to send is not a request
)

// answer answers the request that raw begins with, which is n bytes long unless the step is
// stepMore or stepHand.
//
// Hot path: 0 allocs/op, see TestPlainAllocs.
func (p *plainer) answer(raw []byte, peer netip.Addr, shard uint32, now terse.Millis) (n int, next step) {
	n, what := p.r.parse(raw)
	switch what {
	case partial:
		return 0, stepMore
	case unusual:
		if endsBare(raw) {
			p.r.shard = shard
			p.malformed()
			return len(raw), stepBroken
		}
		return 0, stepHand
	}
	p.ctx.Response.Reset()
	p.r.peer, p.r.shard, p.r.now, p.r.mayWait, p.r.waits = peer, shard, now, false, false
	if !p.respond() {
		return n, stepBroken
	}
	if p.r.waits {
		return n, stepWait
	}
	closes := p.r.closes || p.ctx.Response.ConnectionClose()
	p.append(p.r.method == head, closes)
	if closes {
		return n, stepClose
	}
	return n, stepNext
}

// respond calls the server's, and answers a panic in it; then it returns false.
func (p *plainer) respond() (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			p.s.count(p.r, countPanic)
			p.s.o.Log.Error("panic while answering a request", "panic", v, "stack", stack())
			p.fail(http.StatusInternalServerError, "internal error\n", p.r.method == head)
			p.fresh() // it may be in any state: let it go
		}
	}()
	p.s.respond(p.ctx, p.r)
	p.r.click, p.r.link = clicks.Click{}, link{}
	return true
}

// tooSlow answers a request that did not come in time.
func (p *plainer) tooSlow() {
	p.s.count(p.r, countMalformed)
	p.fail(http.StatusRequestTimeout, tooSlowText, false)
}

// malformed answers what is no request.
func (p *plainer) malformed() {
	p.s.count(p.r, countMalformed)
	p.fail(http.StatusBadRequest, malformedText, false)
}

// fail appends the answer to a request that ends its connection.
func (p *plainer) fail(status int, text string, head bool) {
	p.ctx.Response.Reset()
	p.s.answerText(p.ctx, status, text)
	p.append(head, true)
}

// append writes the answer as fasthttp's server does.
func (p *plainer) append(head, closes bool) {
	res := &p.ctx.Response
	res.Header.SetNoDefaultContentType(true)
	res.SkipBody = head
	if closes {
		res.SetConnectionClose()
	}
	_ = res.Write(p.bw) // into memory
	_ = p.bw.Flush()
}
