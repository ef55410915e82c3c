package engine

import (
	"regexp"
	"strings"

	"github.com/pgdist/pgdist/classify"
)

var (
	leftTemp     = regexp.MustCompile(`(?i)\b(temp|temporary|pg_temp)\b`)
	leftLock     = regexp.MustCompile(`(?i)advisory_lock`)
	leftPrepared = regexp.MustCompile(`(?i)\bprepare\b`)
	leftCursor   = regexp.MustCompile(`(?i)\bwith\s+hold\b`)
	leftOpen     = regexp.MustCompile(`(?i)\bopen\b`)
	leftActs     = regexp.MustCompile(`(?i)advisory_xact_lock|notify\b`)
	leftSeed     = regexp.MustCompile(`(?i)\bsetseed\b`)
	leftConfig   = regexp.MustCompile(`(?i)\bset_config"?\s*\(`)
	// leftSet is SET or RESET where a statement may begin, as that of an UPDATE does not;
	// leftSetText where the text of one may.
	leftSet     = regexp.MustCompile(`(?i)(?:^|[;>/]|\bbegin|\bthen|\belse|\bloop|--[^\n]*\n)\s*` + leftSetWords)
	leftSetText = regexp.MustCompile(`(?i)['"$]\s*` + leftSetWords)
	leftExecute = regexp.MustCompile(`(?i)execute|\bspi_|\bplpy\b`)
)

const leftSetWords = `(re)?set\s+(?:session\s+)?("?[\w.]*"?)(\s*=|\s+to\b)?`

// leftWords are what one of the patterns needs, and what it takes little time to look for in
// megabytes.
var leftWords = []string{"temp", "advisory_", "notify", "prepare", "hold", "open", "set"}

// leavesBehind tells by the text of a function's body, or of a block, what it may leave.
func leavesBehind(code string) leaving {
	var l leaving
	if !containsFold(code, leftWords) {
		return l
	}
	for pin, pattern := range map[classify.Pin]*regexp.Regexp{
		classify.PinTemp: leftTemp, classify.PinAdvisoryLock: leftLock, classify.PinPrepared: leftPrepared, classify.PinHoldCursor: leftCursor, classify.PinSeed: leftSeed,
	} {
		if pattern.MatchString(code) {
			l.pins |= pin
		}
	}
	l.roots, l.acts = leftOpen.MatchString(code), leftActs.MatchString(code)
	for _, m := range leftConfig.FindAllStringIndex(code, -1) {
		l = l.with(leftByConfig(arguments(code[m[1]:])))
	}
	sets := leftSet.FindAllStringSubmatch(code, -1)
	if leftExecute.MatchString(code) {
		sets = append(sets, leftSetText.FindAllStringSubmatch(code, -1)...)
	}
	for _, m := range sets {
		l = l.with(leftBySet(m[1] != "", strings.ToLower(strings.Trim(m[2], `"`)), m[3] != ""))
	}
	return l
}

// anySetting is one whose name does not show.
var anySetting = leaving{pins: classify.PinSetting}

// leftByConfig is what a call of set_config with these arguments leaves.
func leftByConfig(args []string) leaving {
	if len(args) != 3 {
		return anySetting
	}
	if local, ok := literal(args[2]); args[2] == "true" || ok && classify.IsOn(local) {
		return leaving{roots: true}
	}
	name, ok := literal(args[0])
	if !ok {
		return anySetting
	}
	return leftSetting(strings.ToLower(name))
}

// leftSetting is a setting with a name. Who somebody is has no value that could be read back.
func leftSetting(name string) leaving {
	switch {
	case name == nameRole, name == nameAuthorization, !settingName.MatchString(name):
		return anySetting
	case strings.HasPrefix(name, "transaction_"):
		return leaving{}
	}
	return leaving{settings: []string{name}}
}

var settingName = regexp.MustCompile(`^[\w.]+$`)

// leftBySet is what SET, or RESET, of a name leaves; assigns tells of a = or TO after it.
func leftBySet(reset bool, name string, assigns bool) leaving {
	switch {
	case name == "local", name == "transaction", name == "constraints":
		return leaving{roots: true}
	case name == "names":
		return leaving{settings: []string{"client_encoding"}}
	case !assigns && !reset, name == "all", name == "session":
		return anySetting
	}
	return leftSetting(name)
}

// arguments splits what stands behind the opening parenthesis of a call.
func arguments(code string) (args []string) {
	depth, from, quoted := 0, 0, false
	for i := range len(code) {
		switch c := code[i]; {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '(' || c == '[':
			depth++
		case c == ',' && depth == 0:
			args, from = append(args, strings.TrimSpace(code[from:i])), i+1
		case c == ')' && depth == 0:
			return append(args, strings.TrimSpace(code[from:i]))
		case c == ')' || c == ']':
			depth--
		}
	}
	return nil
}

// literal is the text of a string constant. Within another one its quotes are doubled.
func literal(arg string) (string, bool) {
	s := strings.ReplaceAll(arg, "''", "'")
	s = strings.TrimSuffix(strings.ToLower(s), "::text")
	if len(s) < 2 || s[0] != '\'' || s[len(s)-1] != '\'' || strings.Contains(s[1:len(s)-1], "'") {
		return "", false
	}
	return s[1 : len(s)-1], true
}
