package crilog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close()
	}
}

// openAll opens a log's files, oldest first. A rotation that comes between makes it begin again.
func openAll(path string) ([]*os.File, error) {
	for tries := 0; ; tries++ {
		files, err := openOnce(path)
		if err != nil {
			return nil, err
		}
		if tries == 20 || isCurrent(path, files) {
			slices.Reverse(files)
			return files, nil
		}
		closeAll(files)
	}
}

// openOnce opens the current file first and then upwards: as a rotation moves files upwards too, one
// may be met twice, but none is missed.
func openOnce(path string) (files []*os.File, err error) {
	last := -1
	var infos []fs.FileInfo
	for n := 0; n == 0 || n <= last; n++ {
		file, info, err := openLog(rotated(path, n))
		if err == nil {
			if slices.ContainsFunc(infos, func(met fs.FileInfo) bool { return os.SameFile(met, info) }) {
				_ = file.Close()
			} else {
				files, infos = append(files, file), append(infos, info)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			closeAll(files)
			return nil, err
		}
		if n == 0 {
			if last, err = highest(path); err != nil {
				closeAll(files)
				return nil, err
			}
		}
	}
	return files, nil
}

func openLog(path string) (*os.File, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// highest is the highest number that a rotation may be giving to a file just now.
func highest(path string) (int, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	last := 0
	for _, entry := range entries {
		number, ok := strings.CutPrefix(entry.Name(), filepath.Base(path)+".")
		n, err := strconv.Atoi(number)
		if ok && err == nil && rotated("", n) == "."+number && n <= 10000 {
			last = max(last, n)
		}
	}
	return last + 1, nil
}

// isCurrent tells whether the first of the files is still the newest.
func isCurrent(path string, files []*os.File) bool {
	at, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// Between two steps of a rotation, or its writer was killed there.
		at, err = os.Lstat(rotated(path, 1))
	}
	if err != nil || len(files) == 0 {
		return errors.Is(err, fs.ErrNotExist) && len(files) == 0
	}
	info, err := files[0].Stat()
	return err == nil && os.SameFile(at, info)
}

// firstName is the extended attribute with the number of bytes that the log had before a file. Only
// with it can a reader that was overtaken tell how much it missed. Not every file system has such
// attributes, tmpfs from Linux 6.6: xattr(7).
const firstName = "user.podsh.log.first"

// control does something with a file's descriptor, which File.Fd could make a blocking one.
func control(file *os.File, do func(fd int)) {
	if conn, err := file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { do(int(fd)) })
	}
}

func setFirst(file *os.File, first int64) {
	control(file, func(fd int) {
		_ = unix.Fsetxattr(fd, firstName, strconv.AppendInt(nil, first, 10), 0)
	})
}

func firstOf(file *os.File) (first int64, ok bool) {
	control(file, func(fd int) {
		text := make([]byte, 20)
		if n, err := unix.Fgetxattr(fd, firstName, text); err == nil {
			first, err = strconv.ParseInt(string(text[:n]), 10, 64)
			ok = err == nil
		}
	})
	return first, ok
}

// firstAfter is what the file after the one at the path has as its first; 0 if nobody knows.
func firstAfter(path string) int64 {
	file, info, err := openLog(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	first, ok := firstOf(file)
	if !ok {
		return 0
	}
	return first + info.Size()
}
