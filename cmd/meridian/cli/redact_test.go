package cli

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	in := `{"url": "nats://leaf:hunter2@hub:7422", "token": "hunter2", "apiKey":"hunter2", "set": [{"name": "X-A", "value": "a\"hunter2"}],
"plain": "kept", "note": "-----BEGIN PRIVATE KEY-----
hunter2
-----END PRIVATE KEY-----", "seed in text": "SUACB7DBPO5TTHLPVXWZ3PAYVZ4KJNRAWBZ3UUJAGRC6VWIZXZGCJXNXAM", "Authorization": "Bearer hunter2",
"service": "default/shop", "slots": 4}`
	out := string(redact([]byte(in)))
	for _, secret := range []string{"hunter2", "SUACB7"} {
		if strings.Contains(out, secret) {
			t.Errorf("%s is left in\n%s", secret, out)
		}
	}
	for _, kept := range []string{`"plain": "kept"`, "@hub:7422", `"service": "default/shop", "slots": 4`, `"name": "X-A"`} {
		if !strings.Contains(out, kept) {
			t.Errorf("%s is gone from\n%s", kept, out)
		}
	}
}

func TestJSONPath(t *testing.T) {
	v := map[string]any{"a": map[string]any{"b.c": "x", "n": 1.5, "deep": []any{map[string]any{"k": "1"}, map[string]any{"k": "2"}}}, "list": []int{1, 2, 3}}
	for template, want := range map[string]string{
		`{.a['b.c']}`: "x\n", `{.a.n}`: "1.5\n", `{.list[0]},{.list[-1]}`: "1,3\n", `{.list}`: "[1,2,3]\n", `{.a.deep[*].k}`: "1 2\n",
		`{$.list[*]}`: "1 2 3\n", `{.none.at.all}`: "\n", `n={.a.n}{"\n"}`: "n=1.5\n", `{.a.deep[1].k}\n`: "2\n", `{.a.deep.*.k}`: "1 2\n", `{.list.x}{.a[0]}`: "\n",
	} {
		tpl, err := parseTemplate(template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		var b strings.Builder
		if err := tpl.write(&b, v); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v, want %q", template, b.String(), err, want)
		}
	}
	for _, wrong := range []string{"", "{", "{a}", "{.}x{..a}", "{.a[}", "{.a[x]}", "{.a['x]}"} {
		if _, err := parseTemplate(wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

// What diffLines says turns one text into the other.
func TestDiffLines(t *testing.T) {
	a := "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"
	b := "one\ntwo\n3\nfour\nfive\nsix\nseven\neight\nnine\nten\n"
	want := "  one\n  two\n- three\n+ 3\n  four\n  five\n  six\n  seven\n  eight\n  nine\n+ ten\n"
	if got := diffLines(a, b); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := diffLines("", "x\ny\n"); got != "+ x\n+ y\n" {
		t.Errorf("new: %q", got)
	}
	if got := diffLines("1\n2\n3\n4\n5\n6\n7\n", "1\n2\n3\n4\n5\n6\n8\n"); got != "  ...\n  4\n  5\n  6\n- 7\n+ 8\n" {
		t.Errorf("cut short: %q", got)
	}
}
