package nodes

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// How often a process says that it lives, and what follows when it does not.
const (
	Beat      = 3 * time.Second
	DeadAfter = 3*Beat + Beat/3 // three heartbeats were missed
	Forget    = 24 * time.Hour
)

// State is what an observer thinks of a process.
type State string

// The states.
const (
	Alive State = "alive"
	Dead  State = "dead" // it was killed, or cannot reach the store
)

// Node is what a process says of itself.
type Node struct {
	ID           string       `json:"id"`   // of its data folder
	Name         string       `json:"name"` // for people
	Roles        []string     `json:"roles"`
	RedirectAddr string       `json:"redirect_addr,omitzero"` // "" without the role
	ControlAddr  string       `json:"control_addr,omitzero"`
	URL          string       `json:"url,omitzero"`       // where other nodes reach its control plane; "": nowhere
	Analytics    string       `json:"analytics,omitzero"` // the engine that it counts clicks with or asks; "": none, or an older version
	Version      string       `json:"version"`
	StartedAt    terse.Millis `json:"started_at"`
}

// Seen is a node as this process sees it.
type Seen struct {
	Node
	State  State
	SeenAt terse.Millis // of its last heartbeat, by its own clock
	Self   bool         // it is this process
}

// record is the document of a node.
type record struct {
	Node
	Boot   string       `json:"boot"` // of one run of the process
	SeenAt terse.Millis `json:"seen_at"`
}

func (rec *record) document(version uint64) (terse.Document, error) {
	data, err := json.Marshal(rec, json.Deterministic(true))
	if err != nil {
		return terse.Document{}, fmt.Errorf("encode node %s: %w", rec.ID, err)
	}
	return terse.Document{Kind: terse.KindProcess, ID: rec.ID, Version: version, Data: data}, nil
}

func decode(doc *terse.Document) (rec record, err error) {
	if err := json.Unmarshal(doc.Data, &rec); err != nil {
		return rec, fmt.Errorf("read node %s: %w", doc.ID, err)
	}
	rec.ID = doc.ID
	return rec, nil
}
