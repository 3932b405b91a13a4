package tuple_test

import (
	"fmt"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestTasks(t *testing.T) {
	for _, c := range []struct {
		n      int
		shared bool
		want   string
	}{{3, false, "[0 1 2]"}, {0, false, "[]"}, {8, true, "[-1]"}} {
		if got := fmt.Sprint(tuple.Tasks(c.n, c.shared)); got != c.want {
			t.Errorf("Tasks(%d, %v) are %s, not %s", c.n, c.shared, got, c.want)
		}
	}
}

// TestTaskName checks that what is not a name of a task is refused: it comes from names of streams and subjects that anybody may make.
func TestTaskName(t *testing.T) {
	for _, task := range []int32{tuple.Shared, 0, 15, 1<<31 - 1} {
		got, err := tuple.ParseTask(tuple.TaskName(task))
		if err != nil || got != task {
			t.Errorf("%d comes back as %d, %v", task, got, err)
		}
	}
	for _, bad := range []string{"", "-1", "x", "2147483648", "Any"} {
		if task, err := tuple.ParseTask(bad); err == nil {
			t.Errorf("%q is read as task %d", bad, task)
		}
	}
}
