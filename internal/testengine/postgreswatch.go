package testengine

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// postgresWatch is a process that outlives the test's own, however that dies, to end its server and to remove its folder.
type postgresWatch struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser // its end is the end of the test
}

// watchScript reads the id of the server to end, a line for each that was started and an empty one when there is none.
// It ends with its input. The folder is $1.
const watchScript = `
trap '' HUP INT TERM
server=
while read -r line; do server=$line; done
if [ -n "$server" ]; then
	kill -s QUIT "$server"
	tries=0
	while kill -0 "$server" && [ "$tries" -lt 100 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	kill -s KILL "$server" # if it is not gone, or nobody takes note of its end
fi
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; } # a child of the server may write its last
`

func watchPostgres(dir string) (*postgresWatch, error) {
	w := &postgresWatch{cmd: exec.Command("sh", "-c", watchScript, "sh", dir)}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what ends all processes of the test leaves it
	var err error
	if w.pipe, err = w.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("watch postgres: %w", err)
	}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("watch postgres: %w", err)
	}
	return w, nil
}

// runs says which process is the server now; 0: none.
func (w *postgresWatch) runs(pid int) {
	line := "\n"
	if pid != 0 {
		line = fmt.Sprintf("%d\n", pid)
	}
	_, _ = io.WriteString(w.pipe, line) // without it the server is ended with the test all the same
}

// end waits until the folder is removed. The server has ended.
func (w *postgresWatch) end() {
	_ = w.pipe.Close()
	_ = w.cmd.Wait()
}
