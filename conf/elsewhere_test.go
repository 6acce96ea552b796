package conf

import "testing"

// Who is told another name finds a key of that name.
func TestWordsOfKeepalivedLeadToKeys(t *testing.T) {
	keys := map[string]bool{}
	for _, k := range Keys() {
		if k.File == DefaultPool {
			keys[k.Key] = true
		}
	}
	for word, here := range keepalivedWords {
		if keys[word] || !keys[here] {
			t.Errorf("%s is said to be %s", word, here)
		}
	}
}
