// Package failpoint lets a test end the process, as kill -9 does, or stop it, as kill -STOP does, at a place in the code that
// has a name. It does nothing, and costs nothing, unless the program was built with the tag
// failpoints: then FAILPOINT=NAME:N kills the process when the place NAME is
// passed for the N-th time, and FAILPOINT=NAME:N:stop stops it there until somebody sends SIGCONT.
//
// The places are listed in Names; e2e kills the server at each of them.
package failpoint

// Names are the places, in the order in which a bulk request, an upload and a job pass them.
var Names = []string{
	LeaseTaken, CodesIssued, ChunkReady, ChunkHalf, ChunkCommitted, BatchDone, ResultsWritten, LedgerEnding, LedgerEnded,
	UploadCreated, UploadWritten, UploadSynced,
	JobStored, JobStarting, JobStarted, ResultFileWritten, ResultFileEnding, ResultFileSynced, JobEnding, JobEnded, CallbackSent,
	RollbackBatch, AnswerStored, CampaignStored,
}

// The places.
const (
	LeaseTaken        = "lease-taken"         // a range of indexes is leased, and nothing has used it
	CodesIssued       = "codes-issued"        // the links of a batch have their numbers
	ChunkReady        = "chunk-ready"         // a chunk with its ledger entry is about to be inserted
	ChunkHalf         = "chunk-half"          // the links of a chunk are in the store's batch, its ledger entry is not
	ChunkCommitted    = "chunk-committed"     // a chunk is durable, and nobody knows yet
	BatchDone         = "batch-done"          // the results of a batch are rendered
	ResultsWritten    = "results-written"     // the results of a batch were written, and the next batch is waited for
	LedgerEnding      = "ledger-ending"       // the body was read to its end, which the ledger does not say yet
	LedgerEnded       = "ledger-ended"        // the ledger says so, the client has not been told
	UploadCreated     = "upload-created"      // an upload is described on disk, and not answered
	UploadWritten     = "upload-written"      // bytes of an upload are written and not synced
	UploadSynced      = "upload-synced"       // bytes of an upload are on disk and not acknowledged
	JobStored         = "job-stored"          // a job is stored, and not answered
	JobStarting       = "job-starting"        // a job is about to be marked as running
	JobStarted        = "job-started"         // it is marked
	ResultFileWritten = "result-file-written" // a part of a result file is written
	ResultFileEnding  = "result-file-ending"  // a result file is whole and not synced
	ResultFileSynced  = "result-file-synced"  // it is synced, and the job does not say that it is done
	JobEnding         = "job-ending"          // the end of a job is about to be stored
	JobEnded          = "job-ended"           // it is stored, and nobody has been told
	CallbackSent      = "callback-sent"       // a callback was delivered, which is not stored
	RollbackBatch     = "rollback-batch"      // the links of one batch of a rollback are gone
	AnswerStored      = "answer-stored"       // an answer is kept for its repetition and not sent
	CampaignStored    = "campaign-stored"     // a campaign is stored and not answered
)
