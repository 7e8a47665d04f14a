package auth

// AppendSum returns s with the checksum of a key.
func AppendSum(s string) string { return string(appendSum([]byte(s))) }
