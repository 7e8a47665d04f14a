package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/jobs"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/store/dynamostore"
	"github.com/terselink/terse/internal/store/pgstore"
)

// nodes tries where this node says that it is to be reached, and where the others do.
func (d *doctor) nodes(ctx context.Context) {
	if d.cfg.Redis.URL == "" || d.cfg.Store.Engine == config.EnginePebble {
		return // there is one node
	}
	b, err := os.ReadFile(filepath.Join(d.cfg.Data, nodeFile))
	self := strings.TrimSpace(string(b))
	if d.cfg.Has(config.RoleControl) {
		d.ownURL(ctx, self, err == nil && self != "")
	}
	store, err := d.readStore(ctx)
	if err != nil {
		return // the lines of the store say why
	}
	defer func() { _ = store.Close() }() // nothing was written
	registry := nodes.New(nodes.Options{Store: store, Self: nodes.Node{ID: self}, Clock: func() terse.Millis { return terse.MillisOf(time.Now()) }})
	list, err := registry.List(ctx)
	if err != nil {
		d.add("nodes", true, fmt.Sprintf("the list of nodes cannot be read: %v", err))
		return
	}
	d.otherNodes(ctx, self, list)
	d.counts(self, list)
	d.edges(ctx, store, list)
	d.waitingJobs(ctx, store, list)
}

// counts says whether nodes count clicks apart.
func (d *doctor) counts(self string, list []nodes.Seen) {
	cfg := forShipping(d.cfg)
	me := nodes.Node{ID: self, Name: "this node", Roles: cfg.Role, Analytics: engineOf(cfg)}
	if i := slices.IndexFunc(list, func(n nodes.Seen) bool { return n.ID == self }); i >= 0 {
		me.Name = list[i].Name
	}
	if me.Analytics == "" {
		return
	}
	others := slices.DeleteFunc(slices.Clone(list), func(n nodes.Seen) bool { return n.ID == self })
	d.add("analytics of all nodes", false, countsApart(&me, others))
}

// edges says whether edge nodes have somebody who takes their clicks, if this node does not.
func (d *doctor) edges(ctx context.Context, store terse.Store, list []nodes.Seen) {
	why := takesNoEdges(d.cfg)
	if why == "" {
		return
	}
	const what = "clicks of edge nodes"
	k, err := auth.EdgeKey(ctx, store, terse.MillisOf(time.Now()))
	switch {
	case errors.Is(err, terse.ErrNotFound):
		d.add(what, false, "")
	case err != nil:
		d.add(what, false, fmt.Sprintf("whether there are any cannot be seen: %v", err))
	default:
		d.add(what, !slices.ContainsFunc(list, takesEdges), noEdgeClicks(why, &k, list))
	}
}

// waitingJobs says which jobs wait for nodes that are not there.
func (d *doctor) waitingJobs(ctx context.Context, store jobs.Lister, list []nodes.Seen) {
	waiting, err := jobs.WaitingByNode(ctx, store)
	if err != nil {
		d.add("jobs", true, fmt.Sprintf("they cannot be listed: %v", err))
		return
	}
	ok := true
	for _, id := range slices.Sorted(maps.Keys(waiting)) {
		who := id + ", which is not on the list any more"
		if i := slices.IndexFunc(list, func(n nodes.Seen) bool { return n.ID == id }); i >= 0 {
			if list[i].State == nodes.Alive {
				continue
			}
			who = fmt.Sprintf("%s, which has given no sign of life since %s", list[i].Name, list[i].SeenAt.Time().UTC().Format(time.RFC3339))
		}
		w, count := waiting[id], "1 job waits"
		if w.Jobs > 1 {
			count = fmt.Sprintf("%d jobs wait", w.Jobs)
		}
		ok = false
		d.add("jobs", false, fmt.Sprintf("%s for the node %s. They go on when it starts again on its data folder; if it does not come back, end each with terse jobs cancel at any node (the oldest is %s of workspace %s; docs/cluster.md)",
			count, who, w.Oldest, w.Workspace))
	}
	if ok {
		d.add("jobs", false, "")
	}
}

// tryNodesAtOnce is how many nodes are tried at the same time.
const tryNodesAtOnce = 8

// otherNodes tries the living nodes of a list but this one. What it finds is in the order of the list.
func (d *doctor) otherNodes(ctx context.Context, self string, list []nodes.Seen) {
	list = slices.DeleteFunc(slices.Clone(list), func(n nodes.Seen) bool {
		return n.ID == self || n.State != nodes.Alive || n.ControlAddr == ""
	})
	type trial struct {
		text string
		bad  bool
	}
	found := make([]trial, len(list))
	var tries errgroup.Group
	tries.SetLimit(tryNodesAtOnce)
	for i := range list {
		tries.Go(func() error {
			if n := &list[i]; n.URL == "" {
				found[i].text = "it does not say where it can be reached: what it has is answered by no other node; set node_url there"
			} else {
				found[i].text, found[i].bad = tryNode(ctx, n.URL, n.ID)
			}
			return nil
		})
	}
	_ = tries.Wait() // none returns an error
	for i := range list {
		d.add("node "+list[i].Name, found[i].bad, found[i].text)
	}
}

// ownURL tries this node at its own URL.
func (d *doctor) ownURL(ctx context.Context, self string, started bool) {
	const what = "node_url"
	at := nodeURL(d.cfg.NodeURL, d.cfg.ControlAddr)
	switch {
	case at == "":
		d.add(what, false, "it is not set, and control_addr is no address of a network: other nodes cannot ask this one for its jobs and files")
	case !d.running || !started:
		d.list = append(d.list, Finding{what, FindingOK, at + " was not tried: no server runs with this data folder"})
	default:
		text, bad := tryNode(ctx, at, self)
		d.add(what, bad, text)
	}
}

// readStore opens the store for reading.
func (d *doctor) readStore(ctx context.Context) (terse.Store, error) {
	if d.cfg.Store.Engine == config.EngineDynamoDB {
		t := d.cfg.Store.DynamoDB
		cfg, err := dynamostore.LoadConfig(ctx, t.Region)
		if err != nil {
			return nil, err
		}
		return dynamostore.Open(ctx, dynamostore.Options{Table: t.Table, Config: cfg, Endpoint: t.Endpoint, RetryFor: tableRetry, ReadOnly: true})
	}
	p := d.cfg.Store.Postgres
	return pgstore.Open(ctx, pgstore.Options{URL: p.URL.Reveal(), MaxConns: 1, Pooler: p.Pooler, ReadOnly: true, MaintainEvery: -1})
}

// tryNodeWithin bounds the attempt to reach a node.
const tryNodeWithin = 5 * time.Second

// tryNode asks a node at its URL whether it is the one with an id. It returns what is to be said, "" is nothing, and whether that
// is a problem or a warning. No key is sent: who answers may be anybody.
func tryNode(ctx context.Context, at, id string) (text string, bad bool) {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return at + " is no URL such as http://10.0.0.5:8081", true
	}
	ctx, cancel := context.WithTimeout(ctx, tryNodeWithin)
	defer cancel()
	u = u.JoinPath("healthz")
	u.RawQuery = url.Values{"node": {id}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return at + ": " + err.Error(), true
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSHandshakeTimeout: tryNodeWithin} // no proxy: nodes use none
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return at + ": " + unreachable(err), true
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 256)) // what came is judged
	switch said := strings.TrimSpace(string(b)); {
	case resp.StatusCode == http.StatusMisdirectedRequest:
		return at + " leads to another node: each needs a URL of its own, not that of a load balancer", true
	case resp.StatusCode/100 == 3:
		return fmt.Sprintf("%s leads on to %s: name that", at, resp.Header.Get("Location")), true
	case resp.StatusCode == http.StatusOK && said == "ok this node":
		return "", false
	case resp.StatusCode == http.StatusOK && said == "ok":
		return at + " does not say which node it is: an older version, or still starting", false
	case resp.StatusCode == http.StatusServiceUnavailable:
		return at + " answers that it is not ready", true
	default:
		return fmt.Sprintf("%s answers with status %d, not as the API of a node does", at, resp.StatusCode), true
	}
}

// unreachable says in words why nobody was reached.
func unreachable(err error) string {
	_, dns := errors.AsType[*net.DNSError](err)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	network, _ := errors.AsType[net.Error](err)
	var text string
	switch {
	case dns:
		text = "its host has no address"
	case certificate:
		text = "its certificate is not accepted here, nor by nodes"
	case noTLS:
		text = "there is no TLS: it begins with http://"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "nobody listens there: is the server running?"
	case errors.Is(err, context.DeadlineExceeded), network != nil && network.Timeout():
		text = fmt.Sprintf("no answer within %v: is there a firewall between?", tryNodeWithin)
	case errors.Is(err, io.EOF):
		text = "the connection is closed without an answer; with TLS it begins with https://"
	default:
		return err.Error()
	}
	return fmt.Sprintf("%s (%v)", text, err)
}
