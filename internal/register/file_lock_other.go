//go:build !unix

package register

import (
	"context"
	"errors"
	"io/fs"
)

// Nothing here locks a file so that the lock ends with its holder.

func inode(fs.FileInfo) uint64 { return 0 }

func (f *file) exclusive(context.Context) (func(), error) {
	return nil, f.fail("lock", errors.ErrUnsupported)
}

func (f *file) hold(context.Context, string) error { return f.fail("lock", errors.ErrUnsupported) }

func (f *file) appear(context.Context, string) error { return f.fail("lock", errors.ErrUnsupported) }

func (f *file) alive(context.Context) ([]string, error) {
	return nil, f.fail("lock", errors.ErrUnsupported)
}
