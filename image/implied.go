package image

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sys/unix"
)

// A layer may have a file without the folder that it lies in (image-spec issue 737). Unpacked it has that folder, and an
// overlay shows whose it is, and its mode, as the topmost layer has it: so it would hide what a layer below says of it. The
// folders that are only implied are written down beside the layer, and put right above all layers of an image.

// Folder is what a layer says of a folder.
type Folder struct {
	Mode, UID, GID uint32
	Modified       unix.Timespec
}

func (f Folder) equals(other Folder) bool {
	return f.Mode == other.Mode && f.UID == other.UID && f.GID == other.GID
}

// SaveImplied writes down which folders of the layer are only implied.
func (n *NewLayer) SaveImplied(names []string) error {
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return writeWhole(impliedPath(n.path), text)
}

func impliedPath(layer string) string {
	return filepath.Join(filepath.Dir(layer), "implied-"+filepath.Base(layer))
}

// readImplied reads that; nil where nothing is known, as of layers that an older podsh unpacked.
func readImplied(layer string) (map[string]bool, error) {
	text, err := os.ReadFile(impliedPath(layer))
	if isMissing(err) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	var names []string
	if err == nil {
		err = json.Unmarshal(text, &names)
	}
	implied := map[string]bool{}
	for _, name := range names {
		implied[name] = true
	}
	return implied, err
}

// Stack is unpacked layers, the lowest first, and what is implied in each.
type Stack struct {
	layers  []string
	implied []map[string]bool
}

// NewStack reads what is implied in layers.
func NewStack(layers []string) (*Stack, error) {
	s := &Stack{layers: layers}
	for _, layer := range layers {
		implied, err := readImplied(layer)
		if err != nil {
			return nil, err
		}
		s.implied = append(s.implied, implied)
	}
	return s, nil
}

// Root is what the topmost layer that says something of "/" says of it.
func (s *Stack) Root() (Folder, bool) {
	for i := len(s.layers) - 1; i >= 0; i-- {
		if s.implied[i] == nil {
			return Folder{}, false
		}
		if !s.implied[i]["/"] {
			var st unix.Stat_t
			err := unix.Stat(s.layers[i], &st)
			return folderOf(&st), err == nil
		}
	}
	return Folder{}, false
}

// Wrong finds the folders that an overlay of these layers would show otherwise than they are meant, and all that those lie
// in. The root is none of them: that is as the folder for writes is.
func (s *Stack) Wrong() map[string]Folder {
	wrong, seen := map[string]Folder{}, map[string]bool{"/": true}
	for _, implied := range s.implied {
		for name := range implied {
			if seen[name] {
				continue
			}
			seen[name] = true
			shown, meant, err := s.look(name)
			if err != nil || shown.equals(meant) {
				continue // removed by a layer above, or in a folder that is closed to us
			}
			for ; name != "/" && err == nil; name = path.Dir(name) {
				if _, meant, err = s.look(name); err == nil {
					wrong[name] = meant
				}
			}
		}
	}
	return wrong
}

// look tells how an overlay shows a folder, and how it is meant: as the topmost layer has it that says something of it.
func (s *Stack) look(name string) (shown, meant Folder, err error) {
	f, err := walk(s.layers, name)
	if err != nil {
		return shown, meant, err
	}
	defer f.close()
	if f.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return shown, meant, unix.ENOTDIR
	}
	shown = folderOf(&f.stat)
	for i := len(f.layers) - 1; i >= 0; i-- {
		if s.implied[f.from[i]][name] {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstat(f.layers[i], &st)
		return shown, folderOf(&st), err
	}
	return shown, shown, nil
}

func folderOf(st *unix.Stat_t) Folder {
	return Folder{st.Mode & 0o7777, st.Uid, st.Gid, st.Mtim}
}

// Names are the names of folders, each behind the one that it lies in.
func Names(folders map[string]Folder) []string { return slices.Sorted(maps.Keys(folders)) }

// ownDigest is the algorithm of digests of what is made here. With crypto/sha256 podsh would be larger by the 32 MB of memory that Go
// keeps for random numbers (crypto/internal/fips140/drbg, from Go 1.26), and the fork of an executor slower.
const ownDigest = "blake2b-256"

// PutLayer takes in a layer that is made here, and that no image has: it lasts as long as something has it unpacked.
func (s *Store) PutLayer(text []byte) (Layer, error) {
	sum := blake2b.Sum256(text)
	digest := ownDigest + ":" + hex.EncodeToString(sum[:])
	if err := os.MkdirAll(filepath.Dir(s.BlobPath(digest)), 0o755); err != nil {
		return Layer{}, err
	}
	return Layer{DiffID: digest, Digest: digest, Size: int64(len(text))}, writeWhole(s.BlobPath(digest), text)
}
