package image

// How podsh talks to the program of images: lines of JSON on a stream socket, which the program finds as
// descriptor RequestFD: one Request, then Events until the program ends. Its standard input and output are
// podsh's own where a request says so ("-"), else null.
const RequestFD = 3

// UnpackName is the argv[0] of the program where it is alone with a folder, to unpack a layer there and to do nothing
// else. nsenter.c knows it: it leads the program there, before that starts.
const UnpackName = "podsh@unpack"

// What a request asks for.
const (
	Pull   = "pull"   // Source into the store, named Names
	Save   = "save"   // Images to File as Format
	Import = "import" // a tar of a root file system, File ("-": standard input), as an image of one layer
	Unpack = "unpack" // the layer Layer, which is open as descriptor 0, into the root folder
)

// Request is what the program is asked to do.
type Request struct {
	Do        string   `json:"do"`
	Store     string   `json:"store,omitempty"`      // its path
	Source    string   `json:"source,omitempty"`     // a reference, or oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE ("-": standard input)
	Names     []string `json:"names,omitempty"`      // that it gets; none: those it has in Source
	Single    bool     `json:"single,omitempty"`     // refuse a source that holds several
	Platform  string   `json:"platform,omitempty"`   // os/architecture[/variant]; "" means this machine's
	PlainHTTP bool     `json:"plain_http,omitempty"` // allowed beyond loopback
	Images    []string `json:"images,omitempty"`     // of the store: names or digests
	Format    string   `json:"format,omitempty"`     // oci (a folder), oci-archive or docker-archive
	File      string   `json:"file,omitempty"`
	Config    *Config  `json:"config,omitempty"` // of what is imported
	Layer     *Layer   `json:"layer,omitempty"`
	Limits    Limits   `json:"limits,omitzero"`
	Squash    bool     `json:"squash,omitempty"` // there is one id only: all files belong to root
}

// Limits are where unpacking a layer stops; 0 means none.
type Limits struct {
	Bytes   int64 `json:"bytes,omitempty"`
	Entries int64 `json:"entries,omitempty"`
}

// Event is what the program tells. One with Finished or Error is the last.
type Event struct {
	// Found tells what Pull found, before anything is downloaded: its layers, lowest first.
	Found *Image `json:"found,omitempty"`

	// Blob tells how far the transfer of a blob, or the unpacking of a layer, has got.
	Blob  string `json:"blob,omitempty"` // its digest
	Done  int64  `json:"done,omitempty"` // bytes of it
	Size  int64  `json:"size,omitempty"`
	Ready bool   `json:"ready,omitempty"` // it is whole, and in the store

	// Implied tells which folders of a layer had to be made, of which it says nothing itself: at the end of Unpack.
	Implied []string `json:"implied,omitempty"`
	// Warning is worth a word, and no more.
	Warning string `json:"warning,omitempty"`

	// Images have been taken in, written, or (Unpack) nothing, at the end of all.
	Finished bool     `json:"finished,omitempty"`
	Images   []*Image `json:"images,omitempty"`

	// Error says why that did not come about.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}
