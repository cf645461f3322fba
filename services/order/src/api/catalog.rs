use axum::Json;
use axum::extract::State;
use millrace::problem::Problem;

use super::view::{CatalogView, ProductView};
use super::{Api, no_catalog};

/// Get the catalog
///
/// Everything that can be ordered, with the prices an order placed now would get.
#[utoipa::path(
    get,
    path = "/catalog",
    tag = "catalog",
    responses(
        (status = 200, description = "All products", body = CatalogView),
        (status = 503, description = "It has not been read yet", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get_catalog(State(api): State<Api>) -> Result<Json<CatalogView>, Problem> {
    let products = api.catalog.now().ok_or_else(no_catalog)?;
    let view = |product: &contracts::catalog::Product| ProductView {
        product_id: product.product_id.clone(),
        name: product.name.clone(),
        unit_price: product.unit_price,
    };
    Ok(Json(CatalogView { products: products.values().map(view).collect() }))
}
