package pebblestore

import (
	"encoding/binary"

	"github.com/terselink/terse"
)

// Key families: the first byte of every key. docs/format/pebble.md is their
// reference; a letter is never used again for something else.
const (
	famAlias       = 'a' // domain, alias -> number
	famBlock       = 'b' // first number of an aligned run of 64 -> up to 64 links
	famChange      = 'c' // seq -> change
	famDocument    = 'd' // workspace, kind, id -> version, data
	famCampaign    = 'g' // workspace, campaign, seq -> runs
	famHint        = 'h' // kind, workspace, …, number -> nothing
	famList        = 'l' // workspace, seq -> runs
	famMeta        = 'm' // name -> value
	famCounter     = 'n' // domain, space -> next index
	famQueue       = 'q' // seq -> workspace, runs that have no hints yet
	famRow         = 'r' // number -> link or tombstone
	famReservation = 'v' // number that an alias reserves -> nothing
	famLeft        = 'x' // workspace, campaign, number, version -> nothing
)

// blockSize is how many consecutive numbers share a block. 64 is where S2 stops
// gaining on personal links (37.1 bytes a link at 64, 36.3 at 128) while a
// point read still decompresses less than 10 KB.
const blockSize = 64

// blockOf returns the number that the block of n is stored under.
func blockOf(n terse.LinkNumber) terse.LinkNumber { return n &^ (blockSize - 1) }

func appendNumberKey(dst []byte, family byte, n terse.LinkNumber) []byte {
	return binary.BigEndian.AppendUint64(append(dst, family), uint64(n))
}

func appendSeqKey(dst []byte, family byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, family), seq)
}

func appendAliasKey(dst []byte, d terse.DomainID, alias string) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, famAlias), uint32(d))
	return append(dst, alias...)
}

func appendCounterKey(dst []byte, d terse.DomainID, s terse.SpaceID) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, famCounter), uint32(d))
	return append(dst, byte(s))
}

// appendListPrefix appends the key of a workspace's list without its seq.
func appendListPrefix(dst []byte, w terse.WorkspaceID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, famList), uint32(w))
}

// appendCampaignPrefix appends the key of a campaign's list without its seq.
func appendCampaignPrefix(dst []byte, w terse.WorkspaceID, c terse.CampaignID) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, famCampaign), uint32(w))
	return binary.BigEndian.AppendUint64(dst, uint64(c))
}

// appendLeftPrefix appends the key of the links that left a campaign, without number and version.
func appendLeftPrefix(dst []byte, w terse.WorkspaceID, c terse.CampaignID) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, famLeft), uint32(w))
	return binary.BigEndian.AppendUint64(dst, uint64(c))
}

// appendDocumentPrefix appends the key of a kind of documents without the id.
// The length before the kind keeps "key" apart from "keyring".
func appendDocumentPrefix(dst []byte, w terse.WorkspaceID, kind terse.Kind) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, famDocument), uint32(w))
	dst = append(dst, byte(len(kind)))
	return append(dst, kind...)
}

// upperBound returns the first key after all that start with prefix.
func upperBound(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil // all 0xff: no key family starts there
}
