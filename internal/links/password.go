package links

import (
	"context"
	"fmt"

	"github.com/alexedwards/argon2id"
)

const (
	// MaxPassword is the longest password in bytes; it also bounds what a guess costs.
	MaxPassword = 200
	// MaxMaxClicks is the largest limit of clicks.
	MaxMaxClicks = 1 << 40
)

// passwordCost is the second choice of the OWASP password storage cheat sheet for argon2id:
// 19 MiB, two passes, one lane.
var passwordCost = argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// hashing bounds the memory of passwords hashed at once, whoever sends them.
var hashing = make(chan struct{}, 2)

// HashPassword returns what is stored of a password: "" for none. Returns an error of code invalid for one
// that is too long.
func HashPassword(password string) (string, error) { return hashPassword(password) }

// PasswordMatches reports whether a password is the one of a hash. It waits for its turn, so that the memory
// of guesses is bounded, at most until ctx ends.
func PasswordMatches(ctx context.Context, password, hash string) (bool, error) {
	if len(password) > MaxPassword {
		return false, nil
	}
	select {
	case hashing <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-hashing }()
	ok, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, fmt.Errorf("check password: %w", err)
	}
	return ok, nil
}

// hashPassword returns what is stored of a password: "" for none.
func hashPassword(password string) (string, error) {
	if password == "" {
		return "", nil
	}
	if err := checkText("password", password, MaxPassword); err != nil {
		return "", err
	}
	hashing <- struct{}{}
	defer func() { <-hashing }()
	hash, err := argon2id.CreateHash(password, &passwordCost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}
