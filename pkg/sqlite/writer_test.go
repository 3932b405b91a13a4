package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// TestBulkWritesShareATransaction has bulk writes wait behind a long one: the first four are done together, and when the third of them fails, each again by itself.
func TestBulkWritesShareATransaction(t *testing.T) {
	db, err := OpenWith(filepath.Join(t.TempDir(), "mesh.db"), Options{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, w := context.Background(), db.writer
	begun, end := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		err := w.doLong(ctx, func(context.Context, *writer) error {
			close(begun)
			<-end
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	broken := errors.New("broken")
	runs := make([]int, maxBulk+2) // the writer's goroutine alone counts
	for i := range runs {
		all.Go(func() {
			err := w.doBulk(ctx, func(ctx context.Context, w *writer) error {
				doc := document.Document{ID: fmt.Sprint(i), Body: []byte("{}")}
				if _, err := w.documents(ctx, kind{collection: "c"}, []document.Document{doc}, []int{0}); err != nil {
					return err
				}
				if runs[i]++; i == 2 {
					return broken
				}
				return w.pause(ctx)
			})
			if want := map[int]error{2: broken}[i]; !errors.Is(err, want) {
				t.Errorf("write %d: %v, want %v", i, err, want)
			}
		})
		time.Sleep(20 * time.Millisecond) // until it waits behind the one before
	}
	close(end)
	all.Wait()
	if diff := cmp.Diff([]int{2, 2, 2, 1, 1, 1}, runs); diff != "" {
		t.Errorf("how often each was done (-want +got):\n%s", diff)
	}
	if n, err := db.Documents().Count(ctx, "c"); err != nil || n != int64(len(runs)-1) {
		t.Errorf("%d documents are stored (%v), want all but those of the broken one, %d", n, err, len(runs)-1)
	}
}
