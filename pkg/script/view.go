package script

type view struct{}
