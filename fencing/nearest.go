package fencing

import (
	"fmt"
	"strings"
)

// didYouMean returns `; did you mean "ipaddr"?`, or what there is when nothing is near.
func didYouMean(word string, there []string) string {
	best, distance := "", len(word)/3+2
	for _, x := range there {
		if d := edits(strings.ToLower(word), strings.ToLower(x)); d < distance {
			best, distance = x, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %q?", best)
	case len(there) == 0:
		return "; there are none"
	}
	return "; there are " + strings.Join(there, ", ")
}

// edits counts the letters to change, put in or take out.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
