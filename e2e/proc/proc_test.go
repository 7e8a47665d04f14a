package proc

import (
	"net"
	"strings"
	"testing"
)

func TestFreeAddr(t *testing.T) {
	for range 20 {
		addr, err := FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatalf("%s is not free: %v", addr, err)
		}
		if port := ln.Addr().(*net.TCPAddr).Port; port < 20_000 || port >= 32_000 {
			t.Errorf("port %d may be taken by an outgoing connection", port)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("TERSE_DATA", "/nowhere")
	for _, kv := range Environ() {
		if strings.HasPrefix(kv, "TERSE_") {
			t.Errorf("%s is passed on", kv)
		}
	}
}

func TestTail(t *testing.T) {
	var l tail
	for range 5000 {
		if _, err := l.Write([]byte("a line of the log\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	if s := l.String(); len(s) > 2*tailBytes || !strings.HasSuffix(s, "log\nthe end") {
		t.Errorf("%d bytes are kept, ending in %q", len(s), s[len(s)-20:])
	}
}
