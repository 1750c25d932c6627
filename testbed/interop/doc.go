// Package interop runs gRPC's interoperability cases, with the client and the server of
// grpc-go, through real proxies: one, with TLS towards the client and without, and those of
// two sites with mTLS between them. A client of gRPC-Web calls the same server. It is a module of its own, since grpc-go moves versions
// of what the product is built with.
//
// Not run are the cases that ask Google for credentials (compute_engine_creds,
// service_account_creds, jwt_token_creds, per_rpc_creds, oauth2_auth_token,
// google_default_credentials, compute_engine_channel_credentials), and pick_first_unary, which
// is about a client with several servers and not about what is between.
package interop
