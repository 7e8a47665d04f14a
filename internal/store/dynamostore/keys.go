package dynamostore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// Every item has a partition key pk (text) and a sort key sk (bytes). The links of
// a domain have a pk that begins with its number; everything else begins with "!".
//
//	<domain>#<code>          one            a link, or what is left of it
//	!n#<number>              one            the code of a Named link
//	!s#<domain>#<space>      one            the counter of a space
//	!r#<domain>#<space>      index          a reservation
//	!d#<workspace>#<kind>    id             a document
//	!q                       one            the counter of the change feed, and its floor
//	!c#<bucket>              seq            a change
//	!k#<chunk>               one            the marker of a large chunk
//	!p#<workspace>#<domain>#<hash>  owner   a hint: codes of links with a destination
//	!g#<workspace>#<campaign>  shard or chunk  a part of the count of a campaign
//	!o                       one            who uses the table, if only one node may
//	!w#<workspace>           one            how many shards of the index the workspace uses
const (
	attrPK, attrSK   = "pk", "sk"
	attrGPK, attrGSK = "gpk", "gsk" // keys of the index by_workspace
	indexName        = "by_workspace"
	attrTTL          = "ttl"
)

// one is the sort key of items that are alone in their partition.
var one = &types.AttributeValueMemberB{Value: []byte{0}}

// key is the primary key of an item, comparable.
type key struct{ pk, sk string }

func (k key) item() map[string]types.AttributeValue {
	return map[string]types.AttributeValue{attrPK: str(k.pk), attrSK: bin([]byte(k.sk))}
}

func single(pk string) key { return key{pk, "\x00"} }

func linkKey(d terse.DomainID, code string) key { return single(linkPK(d, code)) }

func linkPK(d terse.DomainID, code string) string {
	b := make([]byte, 0, 8+len(code))
	b = strconv.AppendUint(b, uint64(d), 10)
	b = append(b, '#')
	return string(append(b, code...))
}

func join(prefix string, parts ...uint64) string {
	b := []byte(prefix)
	for _, p := range parts {
		b = append(b, '#')
		b = strconv.AppendUint(b, p, 10)
	}
	return string(b)
}

func numberKey(n terse.LinkNumber) key { return single(join("!n", uint64(n))) }

func spaceKey(d terse.DomainID, s terse.SpaceID) key { return single(join("!s", uint64(d), uint64(s))) }

func reservationKey(n terse.LinkNumber) key {
	return key{reservationPK(n.Domain(), n.Space()), be64(n.Index())}
}

func reservationPK(d terse.DomainID, s terse.SpaceID) string {
	return join("!r", uint64(d), uint64(s))
}

func documentPK(w terse.WorkspaceID, k terse.Kind) string {
	return join("!d", uint64(w)) + "#" + string(k)
}

func documentKey(w terse.WorkspaceID, k terse.Kind, id string) key { return key{documentPK(w, k), id} }

var feedKey = single("!q")

// bucketBits says how many changes share a partition, so that a busy feed moves on to the next.
const bucketBits = 8

func bucketPK(seq uint64) string { return join("!c", seq>>bucketBits) }

func changeKey(seq uint64) key { return key{bucketPK(seq), be64(seq)} }

func hintPK(w terse.WorkspaceID, d terse.DomainID, destination string) string {
	sum := sha256.Sum256([]byte(destination))
	return join("!p", uint64(w), uint64(d)) + "#" + hex.EncodeToString(sum[:16])
}

func countPK(w terse.WorkspaceID, c terse.CampaignID) string { return join("!g", uint64(w), uint64(c)) }

func workspaceKey(w terse.WorkspaceID) key { return single(join("!w", uint64(w))) }

// chunkID names a large chunk: the millisecond it began in, then random bits, so that the older of two
// is the smaller.
type chunkID [16]byte

func newChunkID(at terse.Millis) chunkID {
	var id chunkID
	binary.BigEndian.PutUint64(id[:], uint64(at))
	_, _ = rand.Read(id[8:]) // never fails
	return id
}

func (id chunkID) began() terse.Millis { return terse.Millis(binary.BigEndian.Uint64(id[:])) }
func (id chunkID) key() key            { return single("!k#" + hex.EncodeToString(id[:])) }
func (id chunkID) value() types.AttributeValue {
	return bin(id[:])
}

// The index by_workspace: the partition is a workspace and a shard of it, the sort key is
// when the link was made and its number.

func shardPK(w terse.WorkspaceID, shard int) string { return join("", uint64(w), uint64(shard))[1:] }

// pendingPK holds the markers of large chunks that are neither committed nor given up.
const pendingPK = "!k"

func position(created terse.Millis, n terse.LinkNumber) []byte {
	b := make([]byte, 0, 16)
	b = binary.BigEndian.AppendUint64(b, uint64(created))
	return binary.BigEndian.AppendUint64(b, uint64(n))
}

func be64(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// Attribute values.

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func bin(b []byte) types.AttributeValue {
	if b == nil {
		b = []byte{} // nil would be no value at all
	}
	return &types.AttributeValueMemberB{Value: b}
}

func yes() types.AttributeValue { return &types.AttributeValueMemberBOOL{Value: true} }
func num[T ~uint64 | ~uint32 | ~uint16 | ~uint8](n T) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatUint(uint64(n), 10)}
}

func inum[T ~int64 | ~int](n T) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(int64(n), 10)}
}

type item = map[string]types.AttributeValue

func getStr(it item, name string) string {
	if v, ok := it[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

func getBin(it item, name string) []byte {
	if v, ok := it[name].(*types.AttributeValueMemberB); ok {
		return v.Value
	}
	return nil
}

// getNum returns a number, 0 if there is none.
func getNum(it item, name string) uint64 {
	if v, ok := it[name].(*types.AttributeValueMemberN); ok {
		if n, err := strconv.ParseUint(v.Value, 10, 64); err == nil {
			return n
		}
	}
	return 0
}

func getInt(it item, name string) int64 {
	if v, ok := it[name].(*types.AttributeValueMemberN); ok {
		if n, err := strconv.ParseInt(v.Value, 10, 64); err == nil {
			return n
		}
	}
	return 0
}

func getBool(it item, name string) bool {
	v, ok := it[name].(*types.AttributeValueMemberBOOL)
	return ok && v.Value
}

func keyOf(it item) key { return key{getStr(it, attrPK), string(getBin(it, attrSK))} }

func getChunk(it item) (id chunkID, ok bool) {
	b := getBin(it, "chunk_id")
	if len(b) != len(id) {
		return id, false
	}
	return chunkID(b), true
}
