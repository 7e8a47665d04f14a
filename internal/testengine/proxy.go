package testengine

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and a server, and fails connections at chosen places, which a proxy that
// sees bytes only cannot.
type Proxy struct {
	ln     net.Listener
	server string
	done   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	stall chan struct{} // not nil: nothing passes until it is closed
	down  bool          // connections are refused
	delay time.Duration // of what the server sends
	// cutAt ends the connection on which a message from the client contains it: before the message
	// is passed on, or before its answer is.
	cutAt     []byte
	cutAnswer bool
}

// NewProxy starts a proxy before the server of an address and returns the address through it.
func NewProxy(t testing.TB, address string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{ln: ln, server: u.Host, conns: map[net.Conn]struct{}{}}
	p.done.Go(p.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		p.Pass()
		p.Drop()
		p.done.Wait()
	})
	u.Host = ln.Addr().String()
	return p, u.String()
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		if down {
			_ = client.Close()
			continue
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		deaf := make(chan struct{}) // closed when answers are to be lost
		p.done.Go(func() { p.forward(client, server, deaf, true) })
		p.done.Go(func() { p.forward(server, client, deaf, false) })
	}
}

func (p *Proxy) forward(from, to net.Conn, deaf chan struct{}, asks bool) {
	defer func() {
		_ = from.Close()
		_ = to.Close()
		p.mu.Lock()
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		stall, delay, hit := p.stall, p.delay, asks && p.cutAt != nil && bytes.Contains(buf[:n], p.cutAt)
		answer := p.cutAnswer
		if hit {
			p.cutAt = nil
		}
		p.mu.Unlock()
		if stall != nil {
			<-stall
		}
		if delay > 0 && !asks {
			<-time.After(delay)
		}
		switch {
		case hit && !answer:
			return
		case hit:
			close(deaf)
		case !asks:
			select {
			case <-deaf:
				return
			default:
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// Cut ends the next connection whose client sends at: before that reaches the server, or before the
// server's answer reaches the client.
func (p *Proxy) Cut(at string, answer bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt, p.cutAnswer = []byte(at), answer
}

// Delay makes whatever the server sends late by d from now on, as a server that is slow.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Hold lets nothing pass, as a network that drops every packet, until Pass.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stall = make(chan struct{})
}

// Refuse ends every connection and lets none in, as a server that is stopped, until Pass.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.Drop()
}

// Pass ends Hold and Refuse.
func (p *Proxy) Pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
	if p.stall != nil {
		close(p.stall)
		p.stall = nil
	}
}

// Drop ends every connection.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}
