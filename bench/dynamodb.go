//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/dynamostore"
)

// dynamodb measures how many links a second the DynamoDB store drives against an endpoint that only
// acknowledges, and what they would cost. Links of a campaign are the budget; plain ones, which have hints, are beside it.
func (b *bench) dynamodb(ctx context.Context) (err error) {
	rows := pick(b, 1_000_000, 200_000)
	var rates [2]float64
	for i, plain := range []bool{false, true} {
		var list []float64
		for range pick(b, 3, 1) {
			rate, note, err := driveDynamo(ctx, rows, plain)
			if err != nil {
				return err
			}
			list = append(list, rate)
			what := "links of a campaign"
			if plain {
				what = "plain links"
			}
			b.say("dynamodb: %s: %s; %s", what, amount(rate, "links/s"), note)
			if len(list) == 1 {
				b.report.detail("dynamodb", "price of a million "+what, "%s", note)
			}
		}
		rates[i] = median(list)
	}
	b.report.measured("dynamodb", rates[0], "with a hint for each destination %s", amount(rates[1], "links/s"))
	return nil
}

// driveDynamo inserts rows links in chunks of 10,000, four at a time, and checks how many transactions it took.
func driveDynamo(ctx context.Context, rows int, plain bool) (rate float64, note string, err error) {
	const chunk, writers = 10_000, 4
	e, err := newAckEndpoint()
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	s, err := dynamostore.Open(ctx, dynamostore.Options{
		Table: "terse", Endpoint: "http://" + e.ln.Addr().String(), MaintainEvery: -1,
		Config: aws.Config{Region: "us-east-1", HTTPClient: dynamostore.HTTPClient(), Credentials: credentials.NewStaticCredentialsProvider("bench", "bench", "")},
	})
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	text := make([]byte, 0, rows*(longDestination+7))
	links := make([]terse.Link, rows)
	for i := range links {
		at := len(text)
		text = fmt.Appendf(text, "%07d", i)
		text = appendDestination(text, uint64(i), longDestination)
		code := string(text[at : at+7])
		links[i] = terse.Link{
			Number: terse.NewLinkNumber(1, 7, uint64(i)), Workspace: 1, Version: 1, CreatedAt: 1_790_000_000_000, UpdatedAt: 1_790_000_000_000,
			Code: code, Destination: string(text[at+7:]),
		}
		if !plain {
			links[i].Campaign = 1
		}
	}
	runtime.GC()
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, writers)
	began := time.Now()
	for w := range writers {
		wg.Go(func() {
			for errs[w] == nil {
				from := int(next.Add(chunk)) - chunk
				if from >= rows {
					return
				}
				errs[w] = s.InsertLinks(ctx, &terse.Chunk{Links: links[from:min(rows, from+chunk)]})
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return 0, "", err
	}
	want := int64(rows+99) / 100
	got := e.transactions.Load()
	if puts := e.puts.Load(); got < want || puts < int64(rows) { // more are repetitions of what had no answer in time
		return 0, "", fmt.Errorf("dynamodb: %d links were %d puts in %d transactions, want %d", rows, puts, got, want)
	}
	u := s.Usage()
	million := 1e6 / float64(rows)
	note = fmt.Sprintf("%d transactions of at least %d, %.2f M write units, $%.2f a million", got, want, u.WriteUnits*million/1e6, u.Cost()*million)
	return float64(rows) / took.Seconds(), note, nil
}

// ackEndpoint speaks just enough of DynamoDB's protocol to acknowledge every write, and counts.
type ackEndpoint struct {
	ln           net.Listener
	conns        sync.Map
	wg           sync.WaitGroup
	counter      atomic.Int64 // of the change feed
	transactions atomic.Int64
	puts         atomic.Int64
	perPut       atomic.Int64 // write units of a put in a transaction
}

func newAckEndpoint() (*ackEndpoint, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &ackEndpoint{ln: ln}
	e.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			e.conns.Store(c, nil)
			e.wg.Go(func() { e.serve(c) })
		}
	})
	return e, nil
}

func (e *ackEndpoint) close() error {
	err := e.ln.Close()
	e.conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
	e.wg.Wait()
	return err
}

// serve answers the requests of one connection until it ends.
func (e *ackEndpoint) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 64<<10)
	var body, out []byte
	for {
		var target string
		size := 0
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
				break
			}
			name, value, _ := bytes.Cut(line, []byte(": "))
			switch {
			case bytes.EqualFold(name, []byte("Content-Length")):
				size, _ = strconv.Atoi(string(value))
			case bytes.EqualFold(name, []byte("X-Amz-Target")):
				_, op, _ := bytes.Cut(value, []byte("."))
				target = string(op)
			}
		}
		if cap(body) < size {
			body = make([]byte, 2*size)
		}
		body = body[:size]
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		answer := e.answer(target, body)
		out = append(out[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: "...)
		out = strconv.AppendInt(out, int64(len(answer)), 10)
		out = append(append(out, "\r\n\r\n"...), answer...)
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// answer acknowledges, with the units that DynamoDB would count.
func (e *ackEndpoint) answer(target string, body []byte) string {
	units := int64(1)
	switch target {
	case "GetItem", "Query":
		return `{}`
	case "TransactWriteItems":
		e.transactions.Add(1)
		n := int64(bytes.Count(body, []byte(`{"Put":`)))
		e.puts.Add(n)
		if e.perPut.Load() == 0 { // all links here are alike
			e.perPut.Store(transactionUnits(body) / max(1, n))
		}
		units = n * e.perPut.Load()
	case "BatchWriteItem":
		units = int64(bytes.Count(body, []byte(`{"PutRequest":`)))
	case "UpdateItem":
		if bytes.Contains(body, []byte("ADD feed_last")) {
			var in struct {
				ExpressionAttributeValues map[string]struct{ N string }
			}
			if json.Unmarshal(body, &in) != nil {
				return `{}`
			}
			n, _ := strconv.ParseInt(in.ExpressionAttributeValues[":n"].N, 10, 64)
			return fmt.Sprintf(`{"Attributes":{"feed_last":{"N":"%d"}},"ConsumedCapacity":{"CapacityUnits":1}}`, e.counter.Add(n))
		}
		units = 2 // a marker, which leaves the index
	case "PutItem":
		units = 2 // a marker, which enters it
	}
	if target == "TransactWriteItems" || target == "BatchWriteItem" {
		return fmt.Sprintf(`{"ConsumedCapacity":[{"CapacityUnits":%d}]}`, units)
	}
	return fmt.Sprintf(`{"ConsumedCapacity":{"CapacityUnits":%d}}`, units)
}

// transactionUnits are the write units of a transaction's puts: two for each KiB of the item and one for
// its copy in the index, by DynamoDB's rules for sizes.
func transactionUnits(body []byte) (units int64) {
	var in struct {
		TransactItems []struct {
			Put struct {
				Item map[string]map[string]jsontext.Value
			}
		}
	}
	if json.Unmarshal(body, &in, json.RejectUnknownMembers(false)) != nil {
		return 0
	}
	for _, op := range in.TransactItems {
		size := 0
		for name, value := range op.Put.Item {
			size += len(name)
			for kind, v := range value {
				switch n := len(v); kind {
				case "N":
					size += n/2 + 1
				case "B":
					size += n * 3 / 4
				default:
					size += n
				}
			}
		}
		blocks := int64(size+1023) / 1024
		units += 2 * blocks
		if _, ok := op.Put.Item["gpk"]; ok {
			units += blocks
		}
	}
	return units
}
