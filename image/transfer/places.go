package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/registries"
)

// place is where an image may be: its registry, or a mirror of that.
type place struct {
	named    image.Reference // as the image is called
	ref      image.Reference // as it is called there
	insecure bool            // it need not speak TLS, nor be known
	mirror   bool
}

// places is a source: the registries that an image may be in, one after the other. From the first that has it all of it is
// taken.
type places struct {
	*registry // the one; nil, as long as there is none
	pulling   *pulling
	short     string // what the name means that was asked for, if it names no registry
	all       []place
}

// openRegistry finds out which registries are to be asked for an image.
func openRegistry(_ context.Context, p *pulling, rest string) (source, error) {
	ref, err := image.ParseReference(rest)
	if err != nil {
		return nil, err
	}
	s, err := registries.Read()
	if err != nil {
		return nil, err
	}
	names, err := s.Names(rest, ref)
	if err != nil {
		return nil, err
	}
	from := &places{pulling: p}
	if len(names) > 1 || names[0] != ref {
		from.short = ref.String()
	}
	for _, name := range names {
		all, err := placesOf(s, name)
		if err != nil {
			return nil, err
		}
		from.all = append(from.all, all...)
	}
	return from, nil
}

// placesOf are an image's registry and the mirrors of that, which come first.
func placesOf(s *registries.Settings, name image.Reference) ([]place, error) {
	whole := name.Registry + "/" + name.Repository
	r, length := s.RuleFor(whole)
	if r == nil {
		return []place{{named: name, ref: name}}, nil
	}
	if r.Blocked {
		return nil, image.Fail(image.ErrInvalid, "it says so for "+r.Prefix, "registry %q is blocked by %s", name.Registry, r.File)
	}
	var all []place
	at := func(location string, insecure, mirror bool) error {
		ref := name
		if location != "" {
			moved, err := image.ParseReference(location + whole[length:])
			if err != nil {
				return image.Fail(err, "HOST[:PORT][/PATH]", "%s: location %q: %v", r.File, location, err)
			}
			ref.Registry, ref.Repository = moved.Registry, moved.Repository
		}
		all = append(all, place{name, ref, insecure, mirror})
		return nil
	}
	for _, m := range r.Mirrors {
		byDigest := name.Digest != ""
		if (r.ByDigest || m.From == "digest-only") && !byDigest || m.From == "tag-only" && byDigest {
			continue
		}
		if err := at(m.Location, m.Insecure, true); err != nil {
			return nil, err
		}
	}
	location := r.Location
	if location == r.Prefix || strings.ContainsAny(r.Prefix, "*") || strings.Contains(location, "*") {
		location = ""
	}
	return all, at(location, r.Insecure, false)
}

func (p *places) find(ctx context.Context) ([]*found, error) {
	var err error
	for i, place := range p.all {
		var r *registry
		var all []*found
		if r, err = connect(ctx, p.pulling, place); err == nil {
			all, err = r.find(ctx)
		}
		if err == nil {
			p.registry = r
			all[0].names = []string{place.name()}
			all[0].origin.Short = p.short
			return all, nil
		}
		if r != nil {
			err = r.explain(err)
			r.close()
		}
		if ctx.Err() != nil || i == len(p.all)-1 {
			break
		}
		if !errors.Is(err, image.ErrNoImage) {
			p.pulling.tell(image.Event{Warning: fmt.Sprintf("%v; %q is asked next", err, p.all[i+1].ref.Registry)})
		}
	}
	if p.several() && errors.Is(err, image.ErrNoImage) {
		return nil, image.Fail(err, "is the name right?", "none of %s has an image %q", strings.Join(p.hosts(), ", "), p.pulling.Source)
	}
	return nil, err
}

// several says whether the name could mean several images.
func (p *places) several() bool {
	return slices.ContainsFunc(p.all, func(other place) bool { return other.named != p.all[0].named })
}

func (p *places) hosts() []string {
	var hosts []string
	for _, place := range p.all {
		hosts = append(hosts, place.ref.Registry)
	}
	return slices.Compact(hosts)
}

// name is what the image is to be called here, wherever it comes from.
func (p place) name() string {
	named := p.named
	if named.Digest != "" {
		named.Tag = "" // nobody has compared the two
	}
	return named.String()
}

// explain has nothing to say where none was found: find has put that into words.
func (p *places) explain(err error) error {
	if p.registry == nil {
		return err
	}
	return p.registry.explain(err)
}

func (p *places) close() {
	if p.registry != nil {
		p.registry.close()
	}
}

func (p *places) open(ctx context.Context, d image.Descriptor, from int64) (io.ReadCloser, int64, error) {
	return p.registry.open(ctx, d, from)
}
