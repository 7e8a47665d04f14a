package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/jobs"
	"github.com/terselink/terse/internal/peers"
)

// ownerFunc finds the node that has what a request is about, and that must answer it. body is that of an operation that takes
// JSON. It returns nil if that is this node, or if nobody can say: then the operation answers.
type ownerFunc func(ctx context.Context, s *Server, c *call, r *http.Request, body []byte) (*peers.Target, error)

// ownerWithin bounds the search for the node that has a thing.
const ownerWithin = 5 * time.Second

// nearest returns the handler of a request that was admitted: h if this node has what the request is about, or knows that
// nobody has; otherwise what passes it on.
func (s *Server) nearest(c *call, r *http.Request, body []byte, h http.HandlerFunc) http.HandlerFunc {
	op := c.op
	if op.owner == nil || !s.mayPassOn(r) {
		return h
	}
	ctx, cancel := context.WithTimeout(r.Context(), ownerWithin)
	defer cancel()
	t, err := op.owner(ctx, s, c, r, body)
	switch {
	case err != nil:
		return func(w http.ResponseWriter, _ *http.Request) { s.refuse(w, c, toProblem(op, err)) }
	case t == nil:
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) { s.passOn(w, r, c, op, t) }
}

// mayPassOn reports whether a request may be passed on: there are other nodes, and none of them sent it.
func (s *Server) mayPassOn(r *http.Request) bool { return s.o.Peers != nil && !peers.Passed(r) }

// target returns a node that has something. Returns other if it lives and says nowhere to be reached; nil stands for an
// operation that says so itself.
func (s *Server) target(ctx context.Context, node string, other error) (*peers.Target, error) {
	t, err := s.o.Peers.Target(ctx, node)
	if err == nil && t == nil {
		err = other
	}
	return t, err
}

// passOn answers a request with what another node says.
func (s *Server) passOn(w http.ResponseWriter, r *http.Request, c *call, op *operation, t *peers.Target) {
	if c.idem != nil {
		c.idem.stored = true // the node that answers keeps the answer, for all
	}
	if op.stream && r.ContentLength != 0 {
		body, err := newBulkBody(r.Body, http.NewResponseController(w), "") // it ends if the client stands still
		if err != nil {
			s.refuse(w, c, toProblem(op, err))
			return
		}
		defer body.stop()
		r.Body = io.NopCloser(body)
	}
	client := ""
	if ip := s.clientIP(r); ip.IsValid() {
		client = ip.String()
	}
	err := s.o.Peers.Pass(w, r, t, client)
	if errors.Is(err, peers.ErrBody) { // no failure of this node or the other one
		err = newProblem(http.StatusBadRequest, "the body ended before it was complete; HEAD says where the upload goes on")
	}
	if err != nil {
		if op.stream {
			w.Header().Set("Connection", "close") // what is left of the body is not read
		}
		s.refuse(w, c, toProblem(op, err))
	}
}

func ownerOfJob(ctx context.Context, s *Server, c *call, r *http.Request, _ []byte) (*peers.Target, error) {
	id := r.PathValue("id")
	if s.o.Jobs != nil && s.o.Jobs.Has(c.workspace, id) {
		return nil, nil
	}
	node, err := jobs.Owner(ctx, s.o.Store, c.workspace, id)
	if err != nil || node == "" || node == s.o.Node {
		return nil, err
	}
	t, err := s.target(ctx, node, &jobs.OtherNodeError{What: "job", Node: node})
	if lostNode(err) {
		e, _ := errors.AsType[*terse.Error](err)
		said := *e
		said.Message += lostJobHelp
		err = &said
	}
	return t, err
}

// lostJobHelp is what can be done about a job whose node is not there.
const lostJobHelp = ". The job goes on when the node starts again on its data folder. If it does not come back, cancel the job at any node (its links stay), and then roll it back if they shall go"

// lostNode reports whether an error of peers.Client.Target says that a node is not there.
func lostNode(err error) bool {
	return errors.Is(err, peers.ErrNotListed) || errors.Is(err, peers.ErrSilent)
}

// ownerOfJobToEnd: a job of a node that is not there is ended by one that runs jobs, see endLost.
func ownerOfJobToEnd(ctx context.Context, s *Server, c *call, r *http.Request, body []byte) (*peers.Target, error) {
	t, err := ownerOfJob(ctx, s, c, r, body)
	if !lostNode(err) {
		return t, err
	}
	if s.o.Jobs != nil {
		return nil, nil
	}
	if t, _ := s.o.Peers.Any(ctx, roleControl, roleWorker); t != nil {
		return t, nil
	}
	return nil, err
}

// endLost ends a job of another node by do, if that is not there. err is what this node says of the job.
func (s *Server) endLost(ctx context.Context, c *call, id string, err error, do func(context.Context, terse.WorkspaceID, string) (jobs.Snapshot, error)) (jobs.Snapshot, error) {
	other, ok := errors.AsType[*jobs.OtherNodeError](err)
	if !ok || s.o.Peers == nil {
		return jobs.Snapshot{}, err
	}
	if _, lost := s.o.Peers.Target(ctx, other.Node); !lostNode(lost) {
		return jobs.Snapshot{}, err
	}
	return do(ctx, c.workspace, id)
}

// ownerOfJobToDelete: a job of a node that is not listed is deleted by the node that is asked, see deleteLost.
func ownerOfJobToDelete(ctx context.Context, s *Server, c *call, r *http.Request, body []byte) (*peers.Target, error) {
	t, err := ownerOfJob(ctx, s, c, r, body)
	if errors.Is(err, peers.ErrNotListed) {
		err = nil
	}
	return t, err
}

// deleteLost deletes a job whose node is not listed, which can only be done where the store is. It reports whether the job is one.
func (s *Server) deleteLost(ctx context.Context, c *call, id string) (bool, error) {
	if !s.mayPassOn(c.request) || s.o.Jobs != nil && s.o.Jobs.Has(c.workspace, id) {
		return false, nil
	}
	node, err := jobs.Owner(ctx, s.o.Store, c.workspace, id)
	if err != nil || node == "" || node == s.o.Node {
		return false, err
	}
	_, err = s.o.Peers.Target(ctx, node)
	switch {
	case errors.Is(err, peers.ErrNotListed):
		return true, jobs.DeleteLost(ctx, s.o.Store, c.workspace, id)
	case err == nil: // it has come back since
		err = &jobs.OtherNodeError{What: "job", Node: node}
	}
	return false, err
}

func ownerOfUpload(ctx context.Context, s *Server, c *call, r *http.Request, _ []byte) (*peers.Target, error) {
	return s.hasUpload(ctx, c, r.PathValue("id"))
}

func (s *Server) hasUpload(ctx context.Context, c *call, id string) (*peers.Target, error) {
	if s.o.Jobs != nil {
		if _, err := s.o.Jobs.Uploads.Get(c.workspace, id); err == nil { // also one whose folder has another id since
			return nil, nil
		}
	}
	node := jobs.UploadOwner(id)
	if node == "" || node == s.o.Node {
		return nil, nil
	}
	t, err := s.target(ctx, node, &jobs.OtherNodeError{What: "upload", Node: node})
	if errors.Is(err, peers.ErrNotListed) && !jobs.UploadMayBe(id, s.o.Clock()) {
		err = terse.ErrNotFound
	}
	return t, err
}

// ownerOfNewJob: a job is where its upload is.
func ownerOfNewJob(ctx context.Context, s *Server, c *call, r *http.Request, body []byte) (*peers.Target, error) {
	var in struct {
		Source JobSource `json:"source"`
	}
	// What is wrong with the body is said by the node that checks all of it.
	if err := json.Unmarshal(body, &in); err == nil {
		t, err := s.hasUpload(ctx, c, in.Source.UploadID)
		if errors.Is(err, terse.ErrNotFound) {
			err = &terse.Error{Code: terse.CodeNotFound, Field: "source.upload_id", Message: "there is no such upload"}
		}
		if t != nil || err != nil {
			return t, err
		}
	}
	return ownerOfNewUpload(ctx, s, c, r, body)
}

// ownerOfNewUpload: an upload stays on the node that takes it, unless that runs no jobs.
func ownerOfNewUpload(ctx context.Context, s *Server, _ *call, _ *http.Request, _ []byte) (*peers.Target, error) {
	if s.o.Jobs != nil {
		return nil, nil
	}
	return s.o.Peers.Any(ctx, roleControl, roleWorker)
}

// The roles of a node that takes uploads.
const (
	roleControl = "control"
	roleWorker  = "worker"
)

// listJobs lists the jobs of all nodes.
func (s *Server) listJobs(ctx context.Context, c *call, in *pageInput) (*listOutput[*Job], error) {
	m := s.o.Jobs
	var err error
	if m != nil || s.o.Peers == nil {
		if m, err = s.jobManager(); err != nil {
			return nil, err
		}
	}
	limit, err := pageSize(in.Limit)
	if err != nil {
		return nil, err
	}
	var list []jobs.Snapshot
	if m != nil {
		list, err = m.List(ctx, c.workspace, in.Cursor, limit+1)
	} else {
		list, err = jobs.ListStored(ctx, s.o.Store, c.workspace, in.Cursor, limit+1, s.o.Clock())
	}
	if err != nil {
		return nil, err
	}
	out := &listOutput[*Job]{Body: page(list, limit, showJob, func(j *jobs.Snapshot) string { return j.ID })}
	s.askProgress(ctx, c, list, out.Body.Data)
	return out, nil
}

const (
	// progressWithin bounds how long a list waits for the nodes that know how far its jobs are.
	progressWithin = 2 * time.Second
	// maxProgress is how many jobs of a list are asked for.
	maxProgress = 32
)

// askProgress asks other nodes how far the jobs are that they run: a store is not told of every step. Where there is no answer
// in time, what is stored stays.
func (s *Server) askProgress(ctx context.Context, c *call, list []jobs.Snapshot, shown []*Job) {
	if !s.mayPassOn(c.request) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, progressWithin)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	asked := 0
	for i := range shown {
		if list[i].State.Ended() || list[i].Node == "" || list[i].Node == s.o.Node || asked == maxProgress {
			continue
		}
		asked++
		wg.Go(func() {
			t, err := s.o.Peers.Target(ctx, list[i].Node)
			if lostNode(err) {
				e, _ := errors.AsType[*terse.Error](err)
				shown[i].Error = &JobError{e.PublicCode(), terse.Message(e) + lostJobHelp}
			}
			if err != nil || t == nil || list[i].State != jobs.Running {
				return
			}
			var j Job
			b, err := s.o.Peers.Get(ctx, t, c.request, "/api/v1/jobs/"+shown[i].ID)
			if err == nil && json.Unmarshal(b, &j) == nil && j.ID == shown[i].ID {
				shown[i] = &j
			}
		})
	}
}
