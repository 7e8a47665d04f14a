package child

import "syscall"

// endWithParent makes the kernel kill the child when the thread that started it ends.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// politeness is the nice value of children: when cores are short, counting clicks gives
// way to answering visitors. The clicks are on disk and are counted afterwards.
const politeness = 10

// yieldToParent lowers the priority of the calling thread, which children inherit.
// A kernel that refuses only makes them less polite.
func yieldToParent() {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), politeness)
}
