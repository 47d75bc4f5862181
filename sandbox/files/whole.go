package files

import (
	"encoding/json"
	"os"
)

// WriteText writes a file under another name, and renames it: whoever reads it finds all of it, or what was there before.
func WriteText(path, text string) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		os.Remove(temporary)
		return err
	}
	return os.Rename(temporary, path)
}

// WriteJSON writes JSON as writeText writes text.
func WriteJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return WriteText(path, string(text))
}
