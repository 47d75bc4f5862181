package nsenter

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sealed makes a program in memory that cannot be changed, memfd_create(2).
func Sealed(name string, text io.Reader) (*os.File, error) {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC came with Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err := file.ReadFrom(text); err != nil {
		file.Close()
		return nil, fmt.Errorf("copy %s: %w", name, err)
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		file.Close()
		return nil, fmt.Errorf("seal the copy of %s: %w", name, err)
	}
	return file, nil
}
