//go:build unix

package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the operating-system user that server programs run as.
type account struct {
	uid, gid int
	switched bool // another than this process's
}

// serverAccount is this process's own user, or postgres (else nobody) for root.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid != 0 {
			return account{uid: uid, gid: gid, switched: true}, nil
		}
	}
	return account{}, ErrNoUser
}

// command prepares a program to run as the account in directory dir, with an
// environment free of PG* variables.
func (a account) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + filepath.Dir(program) + ":/usr/local/bin:/usr/bin:/bin",
		"HOME=" + dir, "LC_ALL=C", "TZ=UTC",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's ^C is for the test alone
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// mkdir makes a directory that belongs to the account.
func (a account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if !a.switched {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// run executes a program as the account and returns an *Error with its output
// when it does not succeed.
func (a account) run(dir, program string, args ...string) error {
	out, err := a.command(dir, program, args...).CombinedOutput()
	if err != nil {
		return &Error{Op: filepath.Base(program), Err: err, Log: string(out)}
	}
	return nil
}
