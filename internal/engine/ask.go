package engine

import "context"

// Ask reads a few rows, as text, from any member in sync as the Config's own user.
func (e *Engine) Ask(ctx context.Context, query string, args ...string) ([][][]byte, error) {
	var tried attempts
	for {
		h, err := e.acquireReader(ctx, nil, &tried, &affinity{})
		if err != nil {
			return nil, err
		}
		rows, err := h.c.Rows(ctx, query, args...)
		if err == nil {
			h.give()
			return rows, nil
		}
		f := classifyError(ctx, err)
		if tried.lost++; !f.connectionGone() || tried.lost > maxLost {
			h.give()
			return nil, err
		}
		tried.mark(e, h)
		h.drop()
	}
}
