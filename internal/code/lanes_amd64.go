package code

import "crypto/aes"

// useLanes: encryptLanes works on this processor.
var useLanes = hasAES()

func hasAES() bool

// encryptLanes encrypts every block of in with AES-128.
//
//go:noescape
func encryptLanes(keys *laneKeys, out, in *[lanes][aes.BlockSize]byte)
