package engine

import "slices"

// SessionState is what a session has set, as far as it can be written down: with it, the session
// goes on in another program.
type SessionState struct {
	// Base are the settings that RESET goes back to, Settings those in force.
	Base, Settings []SettingState
}

// SettingState is the last word on one parameter.
type SettingState struct {
	Name  string // lower case
	SQL   string // sets it
	Value string // "" if that is not known
}

// State is what has to be known of the session to go on with it elsewhere. It reports false if
// that cannot be: something is under way, or lives on a connection.
func (s *Session) State() (SessionState, bool) {
	if s.closed || s.busy || s.raw || s.whole || s.tx.state != txNone || s.pins != 0 || s.held.c != nil || len(s.channels) > 0 {
		return SessionState{}, false
	}
	return SessionState{Base: s.base.states(), Settings: s.settings.states()}, true
}

// ResumeSession goes on with a session whose state is known; Settings of the options are not
// looked at.
func (e *Engine) ResumeSession(o SessionOptions, state SessionState) *Session {
	o.Settings = nil
	s := e.NewSession(o)
	s.base = settingsOf(state.Base)
	s.settings = s.base
	if !slices.Equal(state.Base, state.Settings) {
		s.settings = settingsOf(state.Settings)
	}
	return s
}

func (s *settings) states() (list []SettingState) {
	for _, e := range s.entries() {
		list = append(list, SettingState{Name: e.name, SQL: e.sql, Value: e.value})
	}
	return list
}

func settingsOf(states []SettingState) *settings {
	var list []setting
	for _, e := range states {
		list = append(list, setting{name: e.Name, sql: e.SQL, value: e.Value})
	}
	return newSettings(list)
}
