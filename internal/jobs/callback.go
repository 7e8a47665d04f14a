package jobs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/webhook"
)

// callbackWaits are the pauses after failed deliveries: ten attempts over about 16 hours.
var callbackWaits = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour,
}

// callbacksAtOnce bounds the deliveries under way.
const callbacksAtOnce = 4

// callbacks delivers what is due until the manager stops.
func (m *Manager) callbacks() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		for _, e := range m.due() {
			m.wg.Go(func() { m.deliver(e) })
		}
		select {
		case <-m.ctx.Done():
			return
		case <-m.ring:
		case <-t.C:
		}
	}
}

func (m *Manager) due() []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil
	}
	now := m.o.Clock()
	var list []*entry
	for id, e := range m.jobs {
		if len(m.sending) >= callbacksAtOnce {
			break
		}
		e.mu.Lock()
		c := e.doc.Callback
		ready := c != nil && e.doc.State.Ended() && c.Delivery == "pending" && c.NextAt <= now && !m.sending[id]
		e.mu.Unlock()
		if ready {
			m.sending[id] = true
			list = append(list, e)
		}
	}
	return list
}

// deliver makes one attempt and writes down what came of it. If that write fails the
// attempt is repeated: a receiver knows a message by its id.
func (m *Manager) deliver(e *entry) {
	s := e.snapshot()
	err := m.post(m.ctx, &s)
	failpoint.Hit(failpoint.CallbackSent)
	if m.ctx.Err() == nil {
		terr := m.transition(m.ctx, e, func(j *Job) error {
			c := j.Callback
			if !j.State.Ended() || c.Delivery != "pending" || j.EndedAt != s.EndedAt {
				return errState(j.State, "told") // it goes on, and will end again
			}
			c.Attempts++
			switch {
			case err == nil:
				c.Delivery, c.LastError = "delivered", ""
			case c.Attempts > len(callbackWaits) || terse.ErrorCode(err) == terse.CodeGone:
				c.Delivery, c.LastError = "failed", terse.Message(err)
			default:
				c.NextAt, c.LastError = m.o.Clock()+terse.Millis(callbackWaits[c.Attempts-1].Milliseconds()), terse.Message(err)
			}
			return nil
		})
		if terr != nil && m.ctx.Err() == nil {
			m.o.Log.Warn("the outcome of a callback could not be written", "job", e.id, "error", terr)
		}
	}
	m.mu.Lock()
	delete(m.sending, e.id)
	m.mu.Unlock()
}

func (m *Manager) post(ctx context.Context, s *Snapshot) error {
	secret, err := webhook.ParseSecret(s.Callback.Secret)
	if err != nil {
		return err
	}
	body, err := m.o.Body(s)
	if err != nil {
		return fmt.Errorf("render callback: %w", err)
	}
	id := "msg_" + strings.TrimPrefix(s.ID, Prefix) + "_" + string(s.State)
	h := webhook.Sign(secret, id, m.o.Clock().Time(), body)
	h.Set("Content-Type", "application/json")
	resp, err := m.o.Send.Post(ctx, s.Callback.URL, h, body)
	if err != nil {
		return err
	}
	switch {
	case resp.Status/100 == 2:
		return nil
	case resp.Status == 410:
		return &terse.Error{Code: terse.CodeGone, Message: "the receiver answered 410: it wants no more"}
	}
	return &terse.Error{Code: terse.CodeUnavailable, Message: fmt.Sprintf("the receiver answered %d", resp.Status)}
}
