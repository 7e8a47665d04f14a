//go:build !linux

package child

import "syscall"

// endWithParent is nothing where the kernel cannot do it: the child ends with its input.
func endWithParent() *syscall.SysProcAttr { return nil }

// yieldToParent is nothing where priorities belong to processes and not to threads.
func yieldToParent() {}
