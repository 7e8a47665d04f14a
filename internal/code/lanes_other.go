//go:build !amd64

package code

import "crypto/aes"

const useLanes = false

func encryptLanes(*laneKeys, *[lanes][aes.BlockSize]byte, *[lanes][aes.BlockSize]byte) {
	panic("code: there are no lanes on this processor")
}
